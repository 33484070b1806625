//! Rules as text, near to how nft writes them.

use super::field::{Field, Range, Shown};
use super::{ChainIndex, Condition, Machine, Rule, Step, TableFamily, Verdict};
use std::fmt::Write as _;

/// How many elements of a set are written out.
const MOST_ELEMENTS: usize = 4;

impl Machine {
    /// A rule of a chain as text.
    #[must_use]
    pub fn rule_text(&self, chain: ChainIndex, rule: &Rule) -> String {
        let table = self.chain(chain).and_then(|chain| self.tables.get(chain.table));
        let v6 = table.is_some_and(|table| table.family == TableFamily::Ip6)
            || rule.steps.iter().any(is_of_v6);
        let mut text = String::new();
        for step in &rule.steps {
            if !text.is_empty() {
                text.push(' ');
            }
            match step {
                Step::Match(condition) => condition_text(&mut text, condition, v6),
                Step::Free(what) => text.push_str(what),
                Step::UnknownMatch(unknown)
                | Step::Opaque(unknown)
                | Step::UnknownMark(unknown) => {
                    let _ = write!(text, "<{}>", unknown.what);
                }
                Step::Mark { and, xor } => {
                    let _ = match and {
                        0 => write!(text, "mark set {xor:#x}"),
                        _ => write!(text, "mark set mark & {and:#x} ^ {xor:#x}"),
                    };
                }
                Step::Verdict(verdict) => text.push_str(&self.verdict_text(*verdict)),
                Step::Dispatch { key, map } => {
                    let _ = write!(text, "{} vmap ", key_text(key));
                    match map.name() {
                        Some(name) => {
                            let _ = write!(text, "@{name}");
                        }
                        None => {
                            let _ = write!(text, "{{ {} entries }}", map.entries().len());
                        }
                    }
                }
            }
        }
        if text.is_empty() { "(nothing)".to_owned() } else { text }
    }

    /// A verdict as text.
    #[must_use]
    pub fn verdict_text(&self, verdict: Verdict) -> String {
        let name = |chain| self.chain(chain).map_or_else(|| "?".to_owned(), |c| c.name.clone());
        match verdict {
            Verdict::Accept => "accept".to_owned(),
            Verdict::Drop => "drop".to_owned(),
            Verdict::Return => "return".to_owned(),
            Verdict::Continue => "continue".to_owned(),
            Verdict::Jump(chain) => format!("jump {}", name(chain)),
            Verdict::Goto(chain) => format!("goto {}", name(chain)),
        }
    }
}

fn key_text(key: &[Field]) -> String {
    let names: Vec<&str> = key.iter().map(|field| field_text(*field)).collect();
    names.join(" . ")
}

fn field_text(field: Field) -> &'static str {
    match field {
        Field::Version => "nfproto",
        Field::Source => "saddr",
        Field::Destination => "daddr",
        Field::Protocol => "l4proto",
        Field::First => "sport",
        Field::Second => "dport",
        Field::InDevice => "iifname",
        Field::OutDevice => "oifname",
        Field::State => "ct state",
        Field::Direction => "ct direction",
        Field::Mark => "mark",
    }
}

/// Does a step let pass nothing but IPv6?
fn is_of_v6(step: &Step) -> bool {
    match step {
        Step::Match(condition) if condition.key == [Field::Version] => {
            condition.set.contains_value(6) != condition.negated
        }
        _ => false,
    }
}

fn condition_text(text: &mut String, condition: &Condition, v6: bool) {
    text.push_str(&key_text(&condition.key));
    if let Some(mask) = condition.mask() {
        let _ = write!(text, " & {mask:#x}");
    }
    text.push_str(if condition.negated { " != " } else { " " });
    if let Some(name) = condition.set.name() {
        let _ = write!(text, "@{name}");
        return;
    }
    // Where the rule does not say so, addresses of more than 32 bits are of IPv6.
    let v6 = |range: &Range| v6 || range.last > u128::from(u32::MAX);
    let range_text = |field: Field, range: &Range| {
        let shown = |value| Shown { field, v6: v6(range), value };
        if range.first == range.last {
            shown(range.first).to_string()
        } else {
            format!("{}-{}", shown(range.first), shown(range.last))
        }
    };
    let mut elements: Vec<String> = match condition.key.as_slice() {
        [field] => {
            let some = condition.set.intervals().iter().take(MOST_ELEMENTS + 1);
            some.map(|range| range_text(*field, range)).collect()
        }
        key => {
            let some = condition.set.boxes().iter().take(MOST_ELEMENTS + 1);
            some.map(|one| {
                let parts: Vec<_> = key
                    .iter()
                    .zip(&**one)
                    .map(|(field, range)| range_text(*field, range))
                    .collect();
                parts.join(" . ")
            })
            .collect()
        }
    };
    if elements.len() > MOST_ELEMENTS {
        elements.truncate(MOST_ELEMENTS);
        elements.push("...".to_owned());
    }
    match elements.as_slice() {
        [one] => text.push_str(one),
        _ => {
            let _ = write!(text, "{{ {} }}", elements.join(", "));
        }
    }
}
