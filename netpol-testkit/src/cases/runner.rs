//! Runs cases step by step and asks a judge about every probe.

use super::objects::Objects;
use super::probe::{Kind, World};
use super::report::{Failure, Problem, Report};
use super::{Case, Step};
use crate::judge::Judge;
use netpol_core::Cluster;
use netpol_k8s::api::v1beta1::Meaning;
use netpol_sim::Connection;
use std::collections::{BTreeMap, BTreeSet};

/// Reads manifests, with this meaning of extensions/v1beta1: the cluster, and the errors as `error Kind namespace/name field`.
pub type Reader<'a> = dyn Fn(&str, Meaning) -> (Cluster, Vec<String>) + 'a;

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

impl Case {
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

#[cfg(test)]
mod tests {
    use super::super::parse;
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
}
