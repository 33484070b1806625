//! The semantic cases: files that say what Kubernetes network policy means, and the runner that asks a [`Judge`].
//!
//! The format is described beside the files, in `cases/README.md`. A case is read strictly: an unknown key, a probe that
//! cannot be parsed or covers nothing, a deletion of what is not there are errors of the case, so that no case passes
//! because it says less than it seems to. The files are YAML 1.2: `y`, `no` and `on` are text there, and so they reach
//! the reader of manifests.

mod objects;
mod probe;

use crate::judge::{Judge, verdict};
use netpol_core::{Cluster, Established, Options};
use netpol_k8s::api::v1beta1::Meaning;
use netpol_sim::Connection;
use objects::Objects;
use probe::{Kind, Probe, World};
use serde::Deserialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// One case of one file.
#[derive(Clone, Debug)]
pub struct Case {
    origin: Origin,
    also: Vec<String>,
    established: Established,
    v1beta1_as: Meaning,
    objects: Objects,
    steps: Vec<Step>,
}

/// Where a case stands and what it is called.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Origin {
    file: Arc<str>,
    line: usize,
    case: String,
    title: String,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}: {}", self.file, self.line, self.case, self.title)
    }
}

#[derive(Clone, Debug)]
struct Step {
    /// Number and title; none for a case without steps.
    name: Option<String>,
    delete: Vec<String>,
    apply: Vec<Value>,
    label: Labels,
    diagnostics: Vec<String>,
    expect: Vec<Expectation>,
}

type Labels = BTreeMap<String, BTreeMap<String, Option<String>>>;

#[derive(Clone, Debug)]
struct Expectation {
    text: String,
    probe: Probe,
    allowed: bool,
}

/// A case file that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{place}: {message}")]
pub struct LoadError {
    place: String,
    message: String,
}

/// All cases of all `*.yaml` files of a directory, by file name.
///
/// # Errors
///
/// The first file that cannot be read or is not as the format asks, with line, case and reason.
pub fn load_dir(directory: impl AsRef<Path>) -> Result<Vec<Case>, LoadError> {
    let directory = directory.as_ref();
    let failed = |e: std::io::Error| LoadError {
        place: directory.display().to_string(),
        message: e.to_string(),
    };
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            paths.push(path);
        }
    }
    paths.sort();
    let mut cases = Vec::new();
    for path in paths {
        cases.extend(load(path)?);
    }
    Ok(cases)
}

/// The cases of one file.
///
/// # Errors
///
/// As [`load_dir`].
pub fn load(path: impl AsRef<Path>) -> Result<Vec<Case>, LoadError> {
    let path = path.as_ref();
    let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
    let text = std::fs::read_to_string(path)
        .map_err(|e| LoadError { place: path.display().to_string(), message: e.to_string() })?;
    parse(&name, &text)
}

/// The cases in the text of a file that is called `file`.
///
/// # Errors
///
/// As [`load_dir`].
pub fn parse(file: &str, text: &str) -> Result<Vec<Case>, LoadError> {
    let file: Arc<str> = file.into();
    let mut cases = Vec::new();
    let mut start = 0;
    let lines: Vec<&str> = text.lines().collect();
    for document in lines.split(|line| line.trim_end() == "---") {
        let is_content = |line: &&str| !line.trim().is_empty() && !line.starts_with('#');
        if let Some(first) = document.iter().position(is_content) {
            // Empty lines in place of what comes before keep the line numbers of errors right.
            let padded = "\n".repeat(start) + &document.join("\n");
            let read = read_document(&padded).and_then(|(case, title, rest)| {
                let line = start + first + 1;
                let origin = Origin { file: Arc::clone(&file), line, case, title };
                Case::new(origin, rest)
            });
            cases.push(read.map_err(|message| LoadError {
                place: format!("{file}:{}: case {}", start + first + 1, cases.len() + 1),
                message,
            })?);
        }
        start += document.len() + 1;
    }
    Ok(cases)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
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

fn read_document(text: &str) -> Result<(String, String, Document), String> {
    // As YAML 1.2 has it: the namespace `y` is a name, not a truth value.
    let options = serde_saphyr::options! { strict_booleans: true };
    let document: Document =
        serde_saphyr::from_str_with_options(text, options).map_err(|e| e.to_string())?;
    Ok((document.case.clone(), document.title.clone(), document))
}

impl Case {
    fn new(origin: Origin, document: Document) -> Result<Self, String> {
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

    /// The file that it stands in.
    #[must_use]
    pub fn file(&self) -> &str {
        &self.origin.file
    }

    /// The line of the file on which it begins, from 1.
    #[must_use]
    pub fn line(&self) -> usize {
        self.origin.line
    }

    /// The rules that it shows, the most important one first.
    pub fn rules(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&self.origin.case).chain(&self.also).map(String::as_str)
    }

    /// What it shows, in words.
    #[must_use]
    pub fn title(&self) -> &str {
        &self.origin.title
    }

    /// The options under which it holds.
    #[must_use]
    pub fn options(&self) -> Options {
        Options::default().with_established(self.established)
    }

    /// How many steps it has, at least 1.
    #[must_use]
    pub fn steps(&self) -> usize {
        self.steps.len()
    }

    fn run(&self, read: &Reader<'_>, judge: &mut dyn Judge, report: &mut Report) {
        report.cases += 1;
        judge.start(&self.options());
        let mut objects = self.objects.clone();
        let mut first: Option<Opened> = None;
        for step in &self.steps {
            let fail =
                |problem| Failure { origin: self.origin.clone(), step: step.name.clone(), problem };
            if let Err(message) = step.change(&mut objects) {
                return report.failures.push(fail(Problem::Broken { entry: None, message }));
            }
            let (cluster, errors) = read(&objects.text(), self.v1beta1_as);
            let (mut expected, mut got) = (step.diagnostics.clone(), errors);
            expected.sort();
            got.sort();
            if expected != got {
                report.failures.push(fail(Problem::Diagnostics { expected, got }));
            }
            judge.replace(&cluster);
            let nodes = objects.internal_addresses();
            let first =
                first.get_or_insert_with(|| self.open(cluster.clone(), nodes.clone(), judge));
            let world = World::new(&cluster, nodes);
            let (problems, probes) = step.ask(&world, first, judge);
            report.probes += probes;
            report.failures.extend(problems.into_iter().map(fail));
        }
    }

    /// Opens in the first step what a later one asks about.
    fn open(
        &self,
        cluster: Cluster,
        nodes: BTreeMap<String, Vec<std::net::IpAddr>>,
        judge: &mut dyn Judge,
    ) -> Opened {
        let world = World::new(&cluster, nodes.clone());
        let entries = self.steps.iter().flat_map(|step| &step.expect);
        let established = entries.filter(|entry| entry.probe.kind() == Kind::Established);
        // A probe that cannot be expanded is reported where it stands.
        let connections: BTreeSet<Connection> =
            established.filter_map(|entry| entry.probe.expand(&world).ok()).flatten().collect();
        let open = connections.into_iter().filter(|c| judge.connect(c)).collect();
        Opened { cluster, nodes, open }
    }
}

/// The first step's cluster, and what was opened in it.
struct Opened {
    cluster: Cluster,
    nodes: BTreeMap<String, Vec<std::net::IpAddr>>,
    open: BTreeSet<Connection>,
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

    fn change(&self, objects: &mut Objects) -> Result<(), String> {
        for reference in &self.delete {
            objects.delete(reference)?;
        }
        for object in &self.apply {
            objects.apply(object.clone());
        }
        for (reference, labels) in &self.label {
            objects.label(reference, labels)?;
        }
        Ok(())
    }

    /// Asks all probes; what went wrong, and how many there were.
    fn ask(
        &self,
        world: &World<'_>,
        first: &Opened,
        judge: &mut dyn Judge,
    ) -> (Vec<Problem>, usize) {
        let first_world = World::new(&first.cluster, first.nodes.clone());
        let mut problems = Vec::new();
        // The last entry that covers a probe decides. Open connections are asked first, before new ones get in the way.
        let mut decided: BTreeMap<(bool, Kind, Connection), usize> = BTreeMap::new();
        for (i, entry) in self.expect.iter().enumerate() {
            let kind = entry.probe.kind();
            let established = kind == Kind::Established;
            match entry.probe.expand(if established { &first_world } else { world }) {
                Ok(connections) => {
                    decided.extend(connections.into_iter().map(|c| ((!established, kind, c), i)));
                }
                Err(message) => {
                    let entry = Some(entry.text.clone());
                    problems.push(Problem::Broken { entry, message });
                }
            }
        }
        let probes = decided.len();
        let mut wrong: BTreeMap<usize, Vec<String>> = BTreeMap::new();
        for ((_, kind, connection), i) in decided {
            let Some(entry) = self.expect.get(i) else { continue };
            if kind == Kind::Established && !first.open.contains(&connection) {
                let message = format!(
                    "{} was not allowed in the first step",
                    first_world.describe(&connection)
                );
                problems.push(Problem::Broken { entry: Some(entry.text.clone()), message });
                continue;
            }
            let got = match kind {
                Kind::New => judge.connect(&connection),
                Kind::NewReply => judge.connect(&connection) && judge.reply(&connection),
                Kind::Established => judge.established(&connection),
            };
            if got != entry.allowed {
                wrong.entry(i).or_default().push(world.describe(&connection));
            }
        }
        for (i, connections) in wrong {
            let Some(entry) = self.expect.get(i) else { continue };
            let (entry, allowed) = (entry.text.clone(), entry.allowed);
            problems.push(Problem::Verdict { entry, allowed, connections });
        }
        (problems, probes)
    }
}

/// Reads manifests, with this meaning of extensions/v1beta1: the cluster, and the errors as `error Kind namespace/name field`.
pub type Reader<'a> = dyn Fn(&str, Meaning) -> (Cluster, Vec<String>) + 'a;

/// What came of running cases.
#[derive(Clone, Debug, Default)]
pub struct Report {
    cases: usize,
    probes: usize,
    failures: Vec<Failure>,
}

impl Report {
    /// How many cases were run.
    #[must_use]
    pub fn cases(&self) -> usize {
        self.cases
    }

    /// How many connections were asked about.
    #[must_use]
    pub fn probes(&self) -> usize {
        self.probes
    }

    /// What failed, in the order of the cases.
    #[must_use]
    pub fn failures(&self) -> &[Failure] {
        &self.failures
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for failure in &self.failures {
            writeln!(f, "{failure}")?;
        }
        let Self { cases, probes, failures } = self;
        write!(f, "{cases} cases, {probes} probes, {} failures", failures.len())
    }
}

/// Something that is not as a case expects it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Failure {
    origin: Origin,
    step: Option<String>,
    problem: Problem,
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum Problem {
    /// The case itself cannot be run.
    Broken { entry: Option<String>, message: String },
    /// Other errors are reported than expected.
    Diagnostics { expected: Vec<String>, got: Vec<String> },
    /// The opposite verdict for these connections.
    Verdict { entry: String, allowed: bool, connections: Vec<String> },
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.origin)?;
        if let Some(step) = &self.step {
            write!(f, ": {step}")?;
        }
        match &self.problem {
            Problem::Broken { entry: Some(entry), message } => write!(f, "\n  {entry}: {message}"),
            Problem::Broken { entry: None, message } => write!(f, "\n  {message}"),
            Problem::Diagnostics { expected, got } => {
                let missing = expected.iter().filter(|error| !got.contains(error));
                let surplus = got.iter().filter(|error| !expected.contains(error));
                let count = |all: &[String]| all.len();
                for error in missing {
                    write!(f, "\n  not reported: {error}")?;
                }
                for error in surplus {
                    write!(f, "\n  reported, but not expected: {error}")?;
                }
                write!(f, "\n  {} errors expected, {} reported", count(expected), count(got))
            }
            Problem::Verdict { entry, allowed, connections } => {
                let [expected, got] = [*allowed, !*allowed].map(verdict);
                write!(f, "\n  {entry}: expected {expected}, got {got}")?;
                const SHOWN: usize = 5;
                for connection in connections.iter().take(SHOWN) {
                    write!(f, "\n    {connection}")?;
                }
                match connections.len().checked_sub(SHOWN) {
                    Some(more @ 1..) => write!(f, "\n    and {more} more"),
                    _ => Ok(()),
                }
            }
        }
    }
}

/// Runs cases: reads their manifests with netpol-k8s and asks the judge about every probe.
///
/// ```
/// use netpol_testkit::{Reference, cases};
/// let text = "case: NP-11\ntitle: no policy, no isolation\nframe: e2e\nexpect:\n- \"x/a -> y/b 80/TCP\": allowed\n";
/// let cases = cases::parse("example.yaml", text)?;
/// let report = cases::run(&cases, &mut Reference::new());
/// assert!(report.failures().is_empty(), "{report}");
/// # Ok::<(), cases::LoadError>(())
/// ```
#[must_use]
pub fn run(cases: &[Case], judge: &mut dyn Judge) -> Report {
    let read = |text: &str, v1beta1_as| {
        // Old spellings may be stored in any cluster; the cases say what they mean.
        let mut reader = netpol_k8s::Reader::new().cidr_rules(netpol_k8s::CidrRules::Legacy);
        reader = reader.v1beta1_as(v1beta1_as);
        reader.read_text("case", text);
        let manifests = reader.finish();
        let errors = manifests.diagnostics().iter();
        let errors = errors.filter(|d| d.severity() == netpol_k8s::Severity::Error).map(|d| {
            let part = |part: Option<&str>| part.map(|p| format!(" {p}")).unwrap_or_default();
            format!("error{}{}", part(d.object()), part(d.field()))
        });
        (manifests.cluster().clone(), errors.collect())
    };
    run_with(cases, &read, judge)
}

/// Runs cases with a reader of manifests other than netpol-k8s.
///
/// The reader gets YAML documents, and what those of extensions/v1beta1 mean, and returns the cluster and the errors that it found, each written as in the case
/// files: `error NetworkPolicy x/p spec.ingress[0].from[0].ipBlock.cidr`.
#[must_use]
pub fn run_with(cases: &[Case], read: &Reader<'_>, judge: &mut dyn Judge) -> Report {
    let mut report = Report::default();
    for case in cases {
        case.run(read, judge, &mut report);
    }
    report
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::Reference;
    use netpol_core::{Labels, Pod, PodId, Policy, Selector};

    /// Pods x/a and x/b; whatever is called deny isolates what it names.
    fn read(text: &str, _: Meaning) -> (Cluster, Vec<String>) {
        let mut cluster = Cluster::new();
        for (pod, address) in [("a", "10.0.0.1"), ("b", "10.0.0.2")] {
            let pod = Pod::new(PodId::new("x", pod), Labels::from_iter([("pod", pod)]));
            cluster.insert_pod(pod.with_addresses([address.parse().unwrap()]));
            let name = pod_name(address);
            if text.contains(&format!("deny-{name}")) {
                let subject = Selector::match_labels([("pod", name)]);
                cluster.insert_policy(Policy::network_policy(
                    "x",
                    format!("deny-{name}"),
                    subject,
                    Some(vec![]),
                    None,
                ));
            }
        }
        let errors = if text.contains("broken") {
            vec!["error Pod x/broken spec".to_owned()]
        } else {
            vec![]
        };
        (cluster, errors)
    }

    fn pod_name(address: &str) -> &'static str {
        if address.ends_with('1') { "a" } else { "b" }
    }

    fn run(text: &str) -> Report {
        run_with(&parse("f.yaml", text).unwrap(), &read, &mut Reference::new())
    }

    #[test]
    fn the_last_entry_that_covers_a_probe_decides() {
        let report = run("
# A comment before the first case.

case: NP-11
title: isolation
policies:
  - {metadata: {namespace: x, name: deny-a}}
expect:
  - '* -> * 80/TCP': allowed
  - '* -> x/a 80/TCP': denied
  - 'x/a -> x/a 80/TCP': allowed
---
case: NP-11
title: no policy
expect:
  - '* -> * 80/TCP': allowed
");
        assert_eq!(report.to_string(), "2 cases, 5 probes, 0 failures");
    }

    #[test]
    fn failures_name_everything() {
        let report = run("
case: NP-11
title: first
expect: [{'* -> * 80/TCP': denied}]
---
case: NP-12
title: second
diagnostics: [error Pod x/a metadata]
objects: [{kind: Pod, metadata: {name: broken}}]
expect: [{'x/a -> x/z 80/TCP': denied}]
---
case: NP-13
title: third
steps:
  - expect: [{'x/a -> x/b 80/TCP': allowed}]
  - title: something goes
    delete: [Pod x/a]
");
        let expected = "\
f.yaml:2: NP-11: first
  * -> * 80/TCP: expected denied, got allowed
    x/a (10.0.0.1) -> x/b (10.0.0.2) 80/TCP
    x/b (10.0.0.2) -> x/a (10.0.0.1) 80/TCP
f.yaml:6: NP-12: second
  not reported: error Pod x/a metadata
  reported, but not expected: error Pod x/broken spec
  1 errors expected, 1 reported
f.yaml:6: NP-12: second
  x/a -> x/z 80/TCP: there is no pod x/z
f.yaml:12: NP-13: third: step 2: something goes
  there is no `Pod x/a`
3 cases, 3 probes, 4 failures";
        assert_eq!(report.to_string(), expected);
    }

    #[test]
    fn open_connections_and_replies() {
        let text = |established: &str, after: &str| {
            format!(
                "
case: NP-62
title: open connections
established: {established}
steps:
  - expect:
      - 'x/b -> x/a 80/TCP': allowed
      - 'x/b -> x/a new-reply 80/TCP': allowed
  - policies: [{{metadata: {{namespace: x, name: deny-a}}}}]
    expect:
      - 'x/b -> x/a established 80/TCP': {after}
      - 'x/b -> x/a 80/TCP': denied
      - 'x/b -> x/a new-reply 81/TCP': denied
      - 'x/a -> x/b new-reply 81/TCP': allowed
"
            )
        };
        assert_eq!(run(&text("keep", "allowed")).failures(), []);
        assert_eq!(run(&text("re-evaluate", "denied")).failures(), []);
        assert_eq!(run(&text("keep", "denied")).failures().len(), 1);
        let never_open = "
case: NP-62
title: never open
steps:
  - policies: [{metadata: {namespace: x, name: deny-a}}]
  - expect: [{'x/b -> x/a established 80/TCP': denied}]
";
        assert!(run(never_open).to_string().contains("was not allowed in the first step"));
    }

    #[test]
    fn errors_of_files_name_file_line_and_case() {
        for (text, expected) in [
            (
                "case: A\ntitle: t\n---\n\ncase: B\ntitle: t\nexpects: []\n",
                "f.yaml:1: case 1: A: t: nothing is expected",
            ),
            (
                "case: A\ntitle: t\nexpect: [{x: allowed}]\n",
                "f.yaml:1: case 1: A: t: `x` is not `SRC",
            ),
            ("case: A\ntitle: t\nexpect: [{'* -> * 1/TCP': maybe}]\n", "f.yaml:1: case 1: "),
            ("# c\n---\ncase: A\ntitle: t\nexpects: []\n", "f.yaml:3: case 1: "),
            ("case: A\ntitle: t\nexpect: []\nsteps: []\n", "`steps` take the place"),
            (
                "case: A\ntitle: t\nsteps: [{expect: [{a: denied, b: denied}]}]\n",
                "step 1: an entry of",
            ),
        ] {
            let error = parse("f.yaml", text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}\n{error}");
        }
        let error = parse("f.yaml", "case: A\ntitle: [\n").unwrap_err().to_string();
        assert!(error.contains("line"), "{error}");
        let error = load("no-such-file.yaml").unwrap_err().to_string();
        assert!(error.starts_with("no-such-file.yaml: "), "{error}");
    }

    #[test]
    fn nulls_and_text_of_manifests_are_kept() {
        let text = "
case: NP-02
title: nulls
objects:
  - kind: NetworkPolicy
    metadata: {name: p}
    spec:
      podSelector:
      ingress: null
      labels: {ns: y}
expect: [{'* -> * 80/TCP': allowed}]
";
        let read_nulls = |text: &str, meaning| {
            assert!(text.contains("\"podSelector\": null") && text.contains("\"ingress\": null"));
            assert!(text.contains("\"ns\": \"y\""));
            read(text, meaning)
        };
        let cases = parse("f.yaml", text).unwrap();
        assert_eq!(run_with(&cases, &read_nulls, &mut Reference::new()).failures(), []);
    }

    #[test]
    fn every_case_file_can_be_loaded() {
        let cases = load_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../cases")).unwrap();
        assert!(cases.iter().all(|case| case.steps() > 0 && case.rules().count() > 0));
        assert!(!cases.is_empty());
    }
}
