//! What a terminal may be sent.

use std::borrow::Cow;
use std::io::{IsTerminal, Write as _};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// May colors be used on standard output? On a terminal, unless the user asked for none.
pub(crate) fn colors() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
}

/// Does something, and says so on standard error if that is a terminal and it takes longer than two seconds.
pub(crate) fn waiting<T>(what: &str, work: impl FnOnce() -> T) -> T {
    if !std::io::stderr().is_terminal() {
        return work();
    }
    let (done, is_done) = channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let started = Instant::now();
            let mut said = false;
            let mut wait = Duration::from_secs(2);
            while let Err(RecvTimeoutError::Timeout) = is_done.recv_timeout(wait) {
                eprint!("\r{what}: {} s", started.elapsed().as_secs());
                let _ = std::io::stderr().flush();
                said = true;
                wait = Duration::from_secs(1);
            }
            if said {
                eprint!("\r\u{1b}[K");
            }
        });
        let result = work();
        drop(done);
        result
    })
}

/// Text from manifests without what could steer a terminal: control characters become their escapes. Lines stay lines.
pub(crate) fn printable(text: &str) -> Cow<'_, str> {
    let harmful = |c: char| c.is_control() && c != '\n';
    if !text.contains(harmful) {
        return Cow::Borrowed(text);
    }
    let mut clean = String::with_capacity(text.len());
    for c in text.chars() {
        if harmful(c) { clean.extend(c.escape_default()) } else { clean.push(c) }
    }
    Cow::Owned(clean)
}

#[cfg(test)]
mod tests {
    use super::printable;

    #[test]
    fn control_characters_do_nothing() {
        assert_eq!(printable("web\n\u{1b}[2Jx\u{9b}1m"), "web\n\\u{1b}[2Jx\\u{9b}1m");
        assert_eq!(printable("plain ä"), "plain ä");
    }
}
