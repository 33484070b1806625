//! What a rule does: `-j`.

use super::condition::Draft;
use super::modules::text_of;
use super::{Reader, value};
use crate::lines::Word;
use crate::machine::{Step, Verdict};

impl Reader<'_> {
    /// Adds what `-j NAME` and its options do.
    pub(super) fn target(&mut self, name: &Word<'_>, options: &[Word<'_>], draft: &mut Draft<'_>) {
        let what = || format!("-j {} {}", name.text, text_of(options)).trim_end().to_owned();
        // A chain may have the name of any target but those that are always there.
        let chain = if options.is_empty() { self.jump(name, false) } else { None };
        let verdict = match (&*name.text, options) {
            ("ACCEPT", []) => Some(Verdict::Accept),
            ("DROP", []) => Some(Verdict::Drop),
            ("RETURN", []) => Some(Verdict::Return),
            _ if chain.is_some() => chain,
            ("REJECT", _) => Some(Verdict::Drop),
            // The packet goes on under other addresses; the theorem is about the ones that policy sees.
            ("DNAT" | "SNAT" | "MASQUERADE" | "REDIRECT" | "NETMAP", _) => Some(Verdict::Accept),
            _ => None,
        };
        if let Some(verdict) = verdict {
            return draft.effect.push(Step::Verdict(verdict));
        }
        match &*name.text {
            "LOG" | "NFLOG" | "ULOG" | "TRACE" | "AUDIT" | "CT" | "NOTRACK" | "CLASSIFY"
            | "CHECKSUM" | "DSCP" | "TOS" | "TTL" | "HL" | "ECN" | "TCPMSS" | "TCPOPTSTRIP"
            | "IDLETIMER" | "LED" | "RATEEST" | "TEE" | "SECMARK" | "CONNSECMARK" | "ACCOUNT" => {}
            "MARK" => match mark(options) {
                Some((and, xor)) => draft.effect.push(Step::Mark { and, xor }),
                None => draft.effect.push(Step::UnknownMark(draft.unknown(what()))),
            },
            // The mark of the connection is not modeled: where it is read, it is not understood.
            "CONNMARK" => match options.iter().find(|option| option.text.starts_with("--")) {
                Some(option) if option.is("--restore-mark") => {
                    draft.effect.push(Step::UnknownMark(draft.unknown(what())));
                }
                _ => {}
            },
            // Where the set is looked up it is not understood.
            "SET" if options.iter().any(|option| option.text.starts_with("--map-")) => {
                draft.effect.push(Step::UnknownMark(draft.unknown(what())));
            }
            "SET" => {}
            _ => draft.opaque(what()),
        }
    }
}

/// What `-j MARK` does, as `(mark & and) ^ xor` (xt_MARK, `mark_tg`).
fn mark(options: &[Word<'_>]) -> Option<(u32, u32)> {
    let [option, text] = options else { return None };
    Some(match &*option.text {
        "--set-xmark" => {
            let (value, mask) = value::masked(&text.text)?;
            (!mask, value)
        }
        "--set-mark" => {
            let (value, mask) = value::masked(&text.text)?;
            (!(mask | value), value)
        }
        "--and-mark" => (value::number(&text.text)?, 0),
        "--or-mark" => {
            let bits = value::number(&text.text)?;
            (!bits, bits)
        }
        "--xor-mark" => (u32::MAX, value::number(&text.text)?),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lines::{Quoting, words};

    #[test]
    fn marks_are_linear() {
        for (options, from, to) in [
            ("--set-xmark 0x1/0xffffffff", 6, 1),
            ("--set-xmark 0x4000/0x0", 0x4001, 0x1),
            ("--set-xmark 0x8000/0x8000", 0x1, 0x8001),
            ("--set-mark 0x1/0xf0", 0xff, 0x0f),
            ("--set-mark 7", 0x10, 7),
            ("--and-mark 0x3", 0x6, 0x2),
            ("--or-mark 0x3", 0x6, 0x7),
            ("--xor-mark 0x3", 0x6, 0x5),
        ] {
            let (and, xor) = mark(&words(options, Quoting::Never).unwrap()).unwrap();
            assert_eq!((from & and) ^ xor, to, "{options}");
        }
        assert_eq!(mark(&words("--set-xmark", Quoting::Never).unwrap()), None);
    }
}
