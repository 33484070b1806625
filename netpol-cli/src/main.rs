//! The `netpol` command.
//!
//! This crate reads arguments and files and prints answers. What the answers are is decided in the libraries.

mod args;
mod certificate;
mod check;
mod convert;
mod explain;
mod kernel;
mod lab;
mod list;
mod load;
mod party;
mod snippet;
mod terminal;
mod trace;
mod verify;

use args::{Cli, Command};
use clap::{CommandFactory, Parser};
use std::io::Write;
use std::process::ExitCode;

/// How a command ended.
pub(crate) enum Answer {
    /// Answered.
    Yes,
    /// Answered, and the answer is no.
    No,
    /// Answered as far as possible: something was not understood, and the answer says what.
    Unknown,
}

/// Why a command could not answer. The text has been or will be written to standard error.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("{0}")]
    Message(String),
    /// The defects that made an answer impossible are on standard error already.
    #[error("some of the input could not be read, so an answer would be a guess")]
    Unreadable,
    #[error("the answer could not be written: {0}")]
    Output(#[from] std::io::Error),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let result = run(&cli.command, &mut out).and_then(|answer| {
        out.flush()?;
        Ok(answer)
    });
    match result {
        Ok(Answer::Yes) => ExitCode::SUCCESS,
        Ok(Answer::No) => ExitCode::from(1),
        Ok(Answer::Unknown) => ExitCode::from(2),
        // Whoever reads has seen enough, as `head` has.
        Err(Failure::Output(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(failure) => {
            eprintln!("netpol: {}", terminal::printable(&failure.to_string()));
            ExitCode::from(2)
        }
    }
}

fn run(command: &Command, out: &mut dyn Write) -> Result<Answer, Failure> {
    match command {
        Command::List(args) => list::run(args, out),
        Command::Explain(args) => explain::run(args, out),
        Command::Check(args) => check::run(args, out),
        Command::Convert(args) => convert::run(args, out),
        Command::Render(args) => kernel::render(args, out),
        Command::Apply(args) => kernel::apply(args, out),
        Command::Remove(args) => kernel::remove(args, out),
        Command::Stats(args) => kernel::stats(args, out),
        Command::Verify(args) => verify::run(args, out),
        Command::CheckCertificate(args) => certificate::run(args, out),
        Command::Trace(args) => trace::run(args, out),
        Command::Lab(args) => lab::run(args, out),
        Command::Completions { shell } => {
            clap_complete::generate(*shell, &mut Cli::command(), "netpol", out);
            Ok(Answer::Yes)
        }
        Command::Man => {
            clap_mangen::Man::new(Cli::command()).render(out)?;
            for command in Cli::command().get_subcommands().filter(|c| c.get_name() != "help") {
                clap_mangen::Man::new(command.clone()).render_options_section(out)?;
            }
            Ok(Answer::Yes)
        }
    }
}
