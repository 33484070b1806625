//! The policy APIs of Kubernetes 1.2 to 1.15: what they mean, and the same in `networking.k8s.io/v1`.
//!
//! | API | isolation | in force |
//! |---|---|---|
//! | the alpha of 2016, [`api::alpha`](crate::api::alpha) | annotation of the namespace (LEG-03) | in a namespace that is isolated (LEG-04) |
//! | `extensions/v1beta1` before 1.7, [`api::v1beta1`](crate::api::v1beta1) | annotation of the namespace (LEG-20) | in a namespace that is isolated (LEG-23) |
//! | `extensions/v1beta1` since 1.7 | by being selected | always (LEG-24) |
//!
//! An annotation that isolates becomes a policy of its own in the model, for all pods of the namespace and without a rule: so
//! an answer leads to the line on which the annotation stands. What an annotation leaves without effect is listed as
//! [`Inert`].
//!
//! [`Reader`](crate::Reader) does all of it for text. Who holds typed objects asks [`alpha_isolation`] or [`beta_isolation`]
//! about the namespace, and gives `to_v1` of the objects, and [`default_deny`], to [`Converter`](crate::Converter).
//!
//! Where these APIs were ambiguous they are read closed, with a warning. A namespace whose object was not read is taken to be
//! isolated if a policy in it depends on that.

mod annotation;
mod conversion;
mod express;
mod read;
mod state;

pub use annotation::{Isolation, alpha_isolation, beta_isolation};
pub use conversion::{Conversion, to_v1};
pub use express::{default_deny, expressible};
pub use state::Inert;

pub(crate) use annotation::{Annotations, BetaRules};
pub(crate) use read::looks_alpha;
pub(crate) use state::{Legacy, LegacyPolicy};

/// Which annotation a policy depends on.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Gate {
    Alpha,
    Beta,
}

impl Gate {
    const ALL: [Self; 2] = [Self::Alpha, Self::Beta];

    /// The key of the annotation.
    fn annotation(self) -> &'static str {
        match self {
            Self::Alpha => crate::api::alpha::ANNOTATION,
            Self::Beta => crate::api::v1beta1::ANNOTATION,
        }
    }

    /// The annotation that isolates, as one writes it down.
    fn example(self) -> String {
        match self {
            Self::Alpha => format!("{}: \"on\"", self.annotation()),
            Self::Beta => {
                format!(
                    "{}: '{{\"ingress\":{{\"isolation\":\"DefaultDeny\"}}}}'",
                    self.annotation()
                )
            }
        }
    }

    /// The rule by which a policy without the annotation has no effect.
    fn rule(self) -> &'static str {
        match self {
            Self::Alpha => "LEG-04",
            Self::Beta => "LEG-23",
        }
    }
}
