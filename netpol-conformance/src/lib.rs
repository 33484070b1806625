//! One test suite for everything that enforces network policy.
//!
//! A back end is described by a [`Candidate`]; [`suite!`](crate::suite) makes a test of each promise for it. Where it works in a kernel, real
//! packets decide, in private network namespaces (`netpol-lab`): root, `ip` and what the back end needs are needed. What is
//! expected comes from `netpol_sim::reference`, which knows no back end and no rule IR.
//!
//! ```
//! use netpol_conformance::{Abilities, Candidate, Enforcer, Settings};
//! use netpol_sim::Simulator;
//! use netpol_testkit::Judge;
//!
//! /// What is to be tested; a CNI would start its own enforcement here.
//! struct Simulated;
//!
//! impl Candidate for Simulated {
//!     fn name(&self) -> &'static str {
//!         "simulator"
//!     }
//!     fn abilities(&self) -> Abilities {
//!         Abilities::default()
//!     }
//!     fn start(&self, settings: &Settings) -> Box<dyn Enforcer> {
//!         Box::new(Simulator::with_options(settings.host.policy()))
//!     }
//!     fn judge(&self) -> Option<Box<dyn Judge>> {
//!         Some(Box::new(Simulator::default())) // it enforces nothing in a kernel, so it is asked
//!     }
//! }
//!
//! netpol_conformance::suite!(simulator, super::Simulated);
//! # fn main() { netpol_conformance::fates::a_pod_and_itself(&Simulated); }
//! ```
#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "all of this is part of tests, which fail by panicking and say what they did"
)]

mod arena;
mod candidate;
pub mod connections;
pub mod contract;
pub mod denials;
pub mod fates;
pub mod guard;
pub mod updates;
mod worlds;

pub use arena::Arena;
pub use candidate::{Abilities, Candidate, Enforcer, Settings};
pub use updates::APPLY_UNTIL_KILLED;

/// A module of tests for one candidate: `suite!(name_of_the_module, expression)`. The expression is evaluated in that module,
/// so what stands beside it is `super::`.
///
/// One of the tests kills a process that applies rulesets. That process is this test program again, running
/// `NAME::applies_until_killed`, which does nothing when it is run for itself.
#[macro_export]
macro_rules! suite {
    ($name:ident, $candidate:expr) => {
        mod $name {
            $crate::suite!(@tests $candidate;
                fates: random_clusters, networks_at_their_edges, a_pod_and_itself, the_own_node;
                connections: replies_and_errors_pass, open_connections_when_policy_tightens;
                denials: denial_is_silent_or_told, denied_packets_are_logged_with_their_policy;
                guard: forged_sources;
                contract: every_shape_of_rule_is_accepted, hostile_names_stay_names, applying_again_changes_nothing,
                    there_and_back_again, deltas_lead_where_replacing_leads, others_are_untouched_and_removal_leaves_no_trace,
                    random_clusters_are_read_back;
                updates: nothing_is_lost_or_leaks_while_rules_change, nothing_is_lost_or_leaks_while_pods_come_and_go;
            );

            #[test]
            fn nothing_is_lost_or_leaks_when_applying_is_killed() {
                let child = concat!(stringify!($name), "::applies_until_killed");
                $crate::updates::nothing_is_lost_or_leaks_when_applying_is_killed(&$candidate, child);
            }

            /// Run by the test above, which kills it.
            #[test]
            fn applies_until_killed() {
                if std::env::var_os($crate::APPLY_UNTIL_KILLED).is_some() {
                    $crate::updates::apply_until_killed(&$candidate);
                }
            }
        }
    };
    (@tests $candidate:expr; $($module:ident: $($test:ident),+;)+) => {
        $($(
            #[test]
            fn $test() {
                $crate::$module::$test(&$candidate);
            }
        )+)+
    };
}
