//! Writes a cluster of any size to standard output, for measuring whole commands:
//!
//! ```console
//! cargo run --release -p netpol-testkit --example cluster -- 10000 1000 > big.yaml
//! ```

use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut numbers = std::env::args().skip(1).map(|argument| argument.parse::<usize>());
    match (numbers.next(), numbers.next()) {
        (Some(Ok(pods)), Some(Ok(policies))) => {
            let text = netpol_testkit::scale::manifests(pods, policies);
            match std::io::stdout().write_all(text.as_bytes()) {
                Ok(()) => ExitCode::SUCCESS,
                Err(_) => ExitCode::FAILURE,
            }
        }
        _ => {
            eprintln!("usage: cluster PODS POLICIES");
            ExitCode::from(2)
        }
    }
}
