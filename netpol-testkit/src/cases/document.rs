//! A case as it is written down, and what it says.

use super::objects::{self, Objects};
use super::probe::Probe;
use super::{Case, Expectation, Labels, Origin, Step};
use netpol_core::Established;
use netpol_k8s::api::v1beta1::Meaning;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Document {
    case: String,
    title: String,
    #[serde(default)]
    also: Vec<String>,
    frame: Option<Frame>,
    #[serde(default)]
    established: EstablishedName,
    #[serde(default, rename = "v1beta1-as")]
    v1beta1_as: MeaningName,
    #[serde(default)]
    objects: Vec<Value>,
    policies: Option<Vec<Value>>,
    diagnostics: Option<Vec<String>>,
    expect: Option<Vec<BTreeMap<String, Expected>>>,
    steps: Option<Vec<StepDocument>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct StepDocument {
    title: Option<String>,
    #[serde(default)]
    delete: Vec<String>,
    #[serde(default)]
    apply: Vec<Value>,
    policies: Option<Vec<Value>>,
    #[serde(default)]
    label: Labels,
    diagnostics: Option<Vec<String>>,
    expect: Option<Vec<BTreeMap<String, Expected>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Frame {
    E2e,
    Houses,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum EstablishedName {
    #[default]
    Keep,
    ReEvaluate,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Expected {
    Allowed,
    Denied,
}

#[derive(Default, Deserialize)]
enum MeaningName {
    #[serde(rename = "1.6")]
    Before1_7,
    #[default]
    #[serde(rename = "1.7")]
    Since1_7,
}

pub(super) fn read_document(text: &str) -> Result<(String, String, Document), String> {
    // As YAML 1.2 has it: the namespace `y` is a name, not a truth value.
    let options = serde_saphyr::options! { strict_booleans: true };
    let document: Document =
        serde_saphyr::from_str_with_options(text, options).map_err(|e| e.to_string())?;
    Ok((document.case.clone(), document.title.clone(), document))
}

impl Case {
    pub(super) fn new(origin: Origin, document: Document) -> Result<Self, String> {
        let within = |message: String| format!("{}: {}: {message}", origin.case, origin.title);
        let mut objects = match document.frame {
            Some(Frame::E2e) => objects::e2e_cluster(),
            Some(Frame::Houses) => objects::houses_cluster(),
            None => Objects::default(),
        };
        for object in document.objects {
            objects.apply(object);
        }
        let whole = StepDocument {
            policies: document.policies,
            diagnostics: document.diagnostics,
            expect: document.expect,
            ..StepDocument::default()
        };
        let steps = match document.steps {
            None => vec![Step::new(None, whole).map_err(within)?],
            Some(_) if whole.policies.or(whole.expect.map(|_| vec![])).is_some() => {
                return Err(within("`steps` take the place of `policies` and `expect`".to_owned()));
            }
            Some(steps) => {
                let named = steps.into_iter().enumerate().map(|(i, step)| {
                    let name = match &step.title {
                        Some(title) => format!("step {}: {title}", i + 1),
                        None => format!("step {}", i + 1),
                    };
                    Step::new(Some(name), step)
                });
                named.collect::<Result<_, _>>().map_err(within)?
            }
        };
        if steps.iter().all(|step| step.expect.is_empty() && step.diagnostics.is_empty()) {
            return Err(within("nothing is expected".to_owned()));
        }
        let established = match document.established {
            EstablishedName::Keep => Established::Keep,
            EstablishedName::ReEvaluate => Established::ReEvaluate,
        };
        let v1beta1_as = match document.v1beta1_as {
            MeaningName::Before1_7 => Meaning::Before1_7,
            MeaningName::Since1_7 => Meaning::Since1_7,
        };
        Ok(Self { also: document.also, established, v1beta1_as, objects, steps, origin })
    }
}

impl Step {
    fn new(name: Option<String>, document: StepDocument) -> Result<Self, String> {
        let in_step = |message: String| match &name {
            Some(name) => format!("{name}: {message}"),
            None => message,
        };
        let mut apply = document.apply;
        apply.extend(document.policies.into_iter().flatten().map(objects::policy));
        let mut expect = Vec::new();
        for entry in document.expect.into_iter().flatten() {
            let mut entry = entry.into_iter();
            let (Some((text, expected)), None) = (entry.next(), entry.next()) else {
                return Err(in_step(
                    "an entry of `expect` is one probe and its verdict".to_owned(),
                ));
            };
            let probe = Probe::parse(&text).map_err(in_step)?;
            expect.push(Expectation {
                text,
                probe,
                allowed: matches!(expected, Expected::Allowed),
            });
        }
        let diagnostics = document.diagnostics.unwrap_or_default();
        Ok(Self {
            delete: document.delete,
            apply,
            label: document.label,
            diagnostics,
            expect,
            name,
        })
    }
}
