//! What the second engine says.

use netpol_verify::{Report, bdd};
use serde::Serialize;

/// The conclusion of the second engine beside that of the first.
#[derive(Serialize)]
pub(crate) struct Second {
    verdict: &'static str,
    /// Do the engines come to the same conclusion?
    pub(super) agrees: bool,
    questions: usize,
    /// The nodes of its diagrams.
    nodes: usize,
    milliseconds: u128,
}

impl Second {
    pub(super) fn new(report: &Report, proof: bdd::Proof) -> Self {
        let bdd::Proof { conclusion, statistics, .. } = proof;
        let verdict = conclusion.as_str();
        Self {
            verdict,
            agrees: verdict == report.conclusion.as_str(),
            questions: statistics.questions,
            nodes: statistics.nodes,
            milliseconds: statistics.took.as_millis(),
        }
    }

    pub(super) fn text(&self) -> String {
        let Self { verdict, questions, nodes, milliseconds, .. } = self;
        let how = format!("{questions} questions, {nodes} nodes, in {milliseconds} ms");
        if self.agrees {
            format!("a second engine, over decision diagrams, says the same: {how}")
        } else {
            format!(
                "but a second engine, over decision diagrams, says: {verdict} ({how}); one of them errs: please report it with the \
                 dumps and manifests"
            )
        }
    }
}
