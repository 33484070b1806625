//! Files, directories and texts into one cluster.

use crate::admin::{Channel, Typed};
use crate::api::v1beta1::Meaning;
use crate::convert::Converter;
use crate::diagnostic::{Diagnostic, Location, Severity, quoted};
use crate::document::{self, Chunk};
use crate::legacy::{BetaRules, Inert, Legacy};
use crate::object::{Found, Object, ObjectReader, Owner};
use crate::validate::CidrRules;
use crate::workload::{Controllers, Workload};
use netpol_core::{
    Cluster, Direction, Labels, Match, NAMESPACE_NAME_LABEL, Namespace, NamespaceName,
    NamespaceSelection, Peer, PodId, PodSelection, PolicyId,
};
use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fs, io, thread};

/// Texts shorter than this are read by one thread.
const WORTH_A_THREAD: usize = 256 * 1024;

/// How deep directories may be nested, symbolic links included.
const MOST_DIRECTORIES: usize = 64;

/// Why a path could not be read. What is wrong inside a file is a [`Diagnostic`] instead.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The file or directory cannot be opened or read.
    #[error("cannot read `{}`: {source}", path.display())]
    Io {
        /// The path; `-` is standard input.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// No file in the directory has a name that ends in `.yaml`, `.yml` or `.json`.
    #[error("no *.yaml, *.yml or *.json file in `{}`", path.display())]
    NoManifests {
        /// The directory.
        path: PathBuf,
    },
}

/// Reads manifests. The order of reading matters in one way only: of two objects with one name the later counts.
///
/// ```
/// let mut reader = netpol_k8s::Reader::new();
/// reader.read_text("pods.yaml", "apiVersion: v1\nkind: Pod\nmetadata: {name: web, namespace: shop}\n");
/// let manifests = reader.finish();
/// assert_eq!(manifests.cluster().pods().len(), 1);
/// assert!(manifests.diagnostics().is_empty());
/// ```
#[derive(Debug)]
pub struct Reader {
    default_namespace: NamespaceName,
    cidrs: CidrRules,
    beta: BetaRules,
    channel: Channel,
    assume_namespaces: bool,
    files: Vec<(Arc<str>, String)>,
    diagnostics: Vec<Diagnostic>,
}

impl Default for Reader {
    fn default() -> Self {
        Self::new()
    }
}

impl Reader {
    /// A reader that has read nothing.
    #[must_use]
    pub fn new() -> Self {
        Self {
            default_namespace: NamespaceName::from("default"),
            cidrs: CidrRules::Strict,
            beta: BetaRules::default(),
            channel: Channel::Experimental,
            assume_namespaces: false,
            files: Vec::new(),
            diagnostics: Vec::new(),
        }
    }

    /// With another namespace than `default` for objects that name none.
    #[must_use]
    pub fn default_namespace(mut self, namespace: &str) -> Self {
        self.default_namespace = NamespaceName::from(namespace);
        self
    }

    /// With these rules for the spelling of CIDRs. What a spelling means does not depend on them.
    #[must_use]
    pub fn cidr_rules(mut self, cidrs: CidrRules) -> Self {
        self.cidrs = cidrs;
        self
    }

    /// With this meaning of policies of `extensions/v1beta1` (LEG-23, LEG-24). The default is that of servers since 1.7.
    #[must_use]
    pub fn v1beta1_as(mut self, meaning: Meaning) -> Self {
        self.beta.meaning = meaning;
        self
    }

    /// Honors the spellings of the annotation of `extensions/v1beta1` that examples of its time had, and no server
    /// ([`MISSPELT_ANNOTATIONS`](crate::api::v1beta1::MISSPELT_ANNOTATIONS)), where the right one is not there (LEG-20).
    #[must_use]
    pub fn misspelt_annotations(mut self) -> Self {
        self.beta.misspelt = true;
        self
    }

    /// As a server sees cluster-wide policies that has the definitions of this channel; the experimental one, if not told.
    #[must_use]
    pub fn channel(mut self, channel: Channel) -> Self {
        self.channel = channel;
        self
    }

    /// Takes a namespace that pods are in, but whose object was not read, to exist with no label but its name. That is
    /// right for manifests, where nobody writes down every namespace; a watch must wait for the object instead (NP-26).
    #[must_use]
    pub fn assume_namespaces(mut self) -> Self {
        self.assume_namespaces = true;
        self
    }

    /// Reads a file, or every manifest in a directory and those below it, in the order of their names; `-` is standard
    /// input.
    ///
    /// # Errors
    ///
    /// The path cannot be read, or is a directory without manifests.
    pub fn read_path(&mut self, path: &Path) -> Result<(), ReadError> {
        if path == Path::new("-") {
            return self.read_stdin();
        }
        let failed = |source| ReadError::Io { path: path.to_owned(), source };
        if !fs::metadata(path).map_err(failed)?.is_dir() {
            let bytes = fs::read(path).map_err(failed)?;
            self.read_bytes(&path.display().to_string(), bytes);
            return Ok(());
        }
        let mut files = Vec::new();
        manifests_below(path, MOST_DIRECTORIES, &mut BTreeSet::new(), &mut files)?;
        if files.is_empty() {
            return Err(ReadError::NoManifests { path: path.to_owned() });
        }
        for file in files {
            let bytes =
                fs::read(&file).map_err(|source| ReadError::Io { path: file.clone(), source })?;
            self.read_bytes(&file.display().to_string(), bytes);
        }
        Ok(())
    }

    /// Reads standard input to its end, as the file `-`.
    ///
    /// # Errors
    ///
    /// It cannot be read.
    pub fn read_stdin(&mut self) -> Result<(), ReadError> {
        let mut bytes = Vec::new();
        io::stdin()
            .read_to_end(&mut bytes)
            .map_err(|source| ReadError::Io { path: PathBuf::from("-"), source })?;
        self.read_bytes("-", bytes);
        Ok(())
    }

    /// Reads a text: YAML with any number of documents, or JSON. `name` is what diagnostics call it.
    pub fn read_text(&mut self, name: &str, text: &str) {
        self.push_text(name, text.to_owned());
    }

    /// A lone carriage return ends a line in YAML, and for nobody else: with a line feed in its place all count lines alike.
    fn push_text(&mut self, name: &str, mut text: String) {
        if text.contains('\r') {
            let mut rest = text.chars().peekable();
            let mut lines = String::with_capacity(text.len());
            while let Some(c) = rest.next() {
                lines.push(if c == '\r' && rest.peek() != Some(&'\n') { '\n' } else { c });
            }
            text = lines;
        }
        self.files.push((name.into(), text));
    }

    fn read_bytes(&mut self, name: &str, bytes: Vec<u8>) {
        match String::from_utf8(bytes) {
            Ok(text) => self.push_text(name, text),
            Err(error) => {
                let valid = error.utf8_error().valid_up_to();
                let before = error.as_bytes().get(..valid).unwrap_or_default();
                let line = before.iter().filter(|&&byte| byte == b'\n').count() + 1;
                let location = Location {
                    file: name.into(),
                    line: u32::try_from(line).unwrap_or(u32::MAX),
                    column: 1,
                    length: 1,
                };
                let message = "this file is not text in UTF-8";
                self.diagnostics.push(Diagnostic::unreadable("syntax", message).at(location));
            }
        }
    }

    /// Puts together what was read.
    #[must_use]
    pub fn finish(self) -> Manifests {
        let mut manifests = Manifests {
            cluster: Cluster::new(),
            workloads: BTreeMap::new(),
            diagnostics: self.diagnostics,
            remarks: BTreeMap::new(),
            skipped: BTreeMap::new(),
            cluster_wide: BTreeMap::new(),
            places: BTreeMap::new(),
            sources: BTreeMap::new(),
            legacy: Legacy::new(self.beta),
        };
        let converter = || {
            Converter::new()
                .with_default_namespace(self.default_namespace.clone())
                .with_cidr_rules(self.cidrs)
        };
        let mut assembly = Assembly::default();
        for (file, text) in self.files {
            for found in read(&file, &text, (self.cidrs, self.beta, self.channel), &converter) {
                for kind in found.skipped {
                    *manifests.skipped.entry(kind).or_default() += 1;
                }
                manifests.diagnostics.extend(found.diagnostics);
                for (object, location) in found.objects {
                    assembly.add(object, location, &mut manifests);
                }
            }
            manifests.sources.insert(file, Source { text, lines: OnceCell::new() });
        }
        assembly.finish(&mut manifests);
        if self.assume_namespaces {
            manifests.assume_namespaces();
        }
        manifests
    }
}

/// The objects of one text, in its order; large texts by several threads.
fn read(
    file: &Arc<str>,
    text: &str,
    (cidrs, beta, channel): (CidrRules, BetaRules, Channel),
    converter: &(dyn Fn() -> Converter + Sync),
) -> Vec<Found> {
    let work = |chunks: &[Chunk<'_>]| {
        let mut reader = ObjectReader {
            file: Arc::clone(file),
            converter: converter(),
            cidrs,
            beta,
            channel,
            found: Found::default(),
        };
        for chunk in chunks {
            for node in document::parse(*chunk, file, &mut reader.found.diagnostics) {
                reader.document(&node);
            }
        }
        reader.found
    };
    let chunks = document::split(text);
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let threads = threads.min(text.len() / WORTH_A_THREAD + 1);
    if threads == 1 {
        return vec![work(&chunks)];
    }
    // Small shares, so that one thread does not wait for the other.
    let share = chunks.len().div_ceil(threads * 8).max(1);
    let shares: Vec<&[Chunk<'_>]> = chunks.chunks(share).collect();
    let mut found: Vec<(usize, Found)> = thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|first| {
                let (shares, work) = (&shares, &work);
                scope.spawn(move || {
                    let mine = shares.iter().enumerate().skip(first).step_by(threads);
                    mine.map(|(at, share)| (at, work(share))).collect::<Vec<_>>()
                })
            })
            .collect();
        workers
            .into_iter()
            .flat_map(|worker| {
                worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })
            .collect()
    });
    found.sort_by_key(|(at, _)| *at);
    found.into_iter().map(|(_, found)| found).collect()
}

fn manifests_below(
    directory: &Path,
    depth: usize,
    seen: &mut BTreeSet<PathBuf>,
    files: &mut Vec<PathBuf>,
) -> Result<(), ReadError> {
    let failed = |source| ReadError::Io { path: directory.to_owned(), source };
    // A link may lead back up.
    if depth == 0 || !seen.insert(fs::canonicalize(directory).map_err(failed)?) {
        return Ok(());
    }
    let mut entries: Vec<PathBuf> = fs::read_dir(directory)
        .map_err(failed)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()
        .map_err(failed)?;
    entries.sort();
    for path in entries {
        let hidden = |name: &std::ffi::OsStr| name.to_string_lossy().starts_with('.');
        if path.file_name().is_none_or(hidden) {
            continue;
        }
        let Ok(metadata) = fs::metadata(&path) else { continue };
        let extension = path.extension().and_then(|extension| extension.to_str());
        if metadata.is_dir() {
            manifests_below(&path, depth - 1, seen, files)?;
        } else if metadata.is_file() && matches!(extension, Some("yaml" | "yml" | "json")) {
            files.push(path);
        }
    }
    Ok(())
}

/// Does the answer depend on labels of namespaces other than their names?
fn selects_namespaces(pods: &PodSelection) -> bool {
    match &pods.namespaces {
        NamespaceSelection::Matching(selector) => {
            selector.requirements().iter().any(|r| r.key() != NAMESPACE_NAME_LABEL)
        }
        NamespaceSelection::Named(_) => false,
    }
}

/// What is only known when everything has been read: who belongs to whom.
#[derive(Default)]
struct Assembly {
    controllers: Controllers,
    owners: BTreeMap<PodId, Owner>,
    templates: BTreeMap<Workload, (Option<Owner>, netpol_core::Pod)>,
}

impl Assembly {
    fn add(&mut self, object: Object, location: Location, manifests: &mut Manifests) {
        let name = match &object {
            Object::Pod { pod, .. } => format!("Pod {}", pod.id()),
            Object::Namespace(namespace, _) => format!("Namespace {}", namespace.name()),
            Object::Node(node) => format!("Node {}", node.name()),
            Object::Policy { policy, .. } => policy.id().to_string(),
            Object::Legacy(legacy) => legacy.policy.id().to_string(),
            Object::ClusterWide { name, .. } => name.clone(),
            Object::Workload { namespace, name, kind, .. } => format!("{kind} {namespace}/{name}"),
        };
        if let Some(before) = manifests.places.insert(name.clone(), location.clone()) {
            manifests.diagnostics.push(
                Diagnostic::warning(
                    "same-object-twice",
                    format!("also defined at {before}; this one counts"),
                )
                .at(location)
                .about(name),
            );
        }
        match object {
            Object::Pod { pod, owner } => {
                // An earlier one of the same name may have had another owner, or this one may have none.
                match owner {
                    Some(owner) => self.owners.insert(pod.id().clone(), owner),
                    None => self.owners.remove(pod.id()),
                };
                manifests.cluster.insert_pod(*pod);
            }
            Object::Namespace(namespace, annotations) => {
                manifests.legacy.namespace(namespace.name(), annotations);
                manifests.cluster.insert_namespace(namespace);
            }
            Object::Node(node) => {
                manifests.cluster.insert_node(node);
            }
            Object::Policy { policy, remarks } => {
                // Those of an earlier policy of the same name are about what does not count.
                manifests.remarks.insert(policy.id().clone(), remarks);
                manifests.legacy.forget(policy.id());
                manifests.cluster.insert_policy(*policy);
            }
            Object::Legacy(mut policy) => {
                let remarks = std::mem::take(&mut policy.remarks);
                manifests.remarks.insert(policy.policy.id().clone(), remarks);
                manifests.legacy.policy(*policy);
            }
            Object::ClusterWide { name, policy, typed } => {
                manifests.cluster_wide.insert(name, typed.map(|typed| *typed));
                if let Some(policy) = policy {
                    manifests.cluster.insert_policy(*policy);
                }
            }
            Object::Workload { namespace, name, kind, owner, pod } => {
                let workload = Workload::new(namespace, name, kind);
                self.controllers.add(workload.clone(), owner.clone());
                self.templates.insert(workload, (owner, *pod));
            }
        }
    }

    fn finish(self, manifests: &mut Manifests) {
        let mut with_pods = BTreeSet::new();
        for (id, owner) in &self.owners {
            let pod = manifests.cluster.pod(id);
            let workload = self.controllers.top(id.namespace(), owner, pod);
            with_pods.insert(workload.clone());
            manifests.workloads.insert(id.clone(), workload);
        }
        // A template stands for its pods only while none of them was read, and one that is controlled in turn only while its
        // controller was not.
        let known: BTreeSet<Workload> = self.templates.keys().cloned().collect();
        for (workload, (owner, pod)) in self.templates {
            let top =
                owner.map(|owner| self.controllers.top(workload.namespace(), &owner, Some(&pod)));
            let top = top.unwrap_or_else(|| workload.clone());
            if top != workload && known.contains(&top) || !with_pods.insert(top.clone()) {
                continue;
            }
            manifests.workloads.insert(pod.id().clone(), top);
            manifests.cluster.insert_pod(pod);
        }
        manifests.legacy.finish(&mut manifests.cluster, &mut manifests.diagnostics);
        manifests
            .diagnostics
            .sort_by(|a, b| (a.location(), a.severity()).cmp(&(b.location(), b.severity())));
    }
}

/// What was read: the cluster, and what is to be said about it.
#[derive(Debug)]
pub struct Manifests {
    cluster: Cluster,
    workloads: BTreeMap<PodId, Workload>,
    diagnostics: Vec<Diagnostic>,
    remarks: BTreeMap<PolicyId, Vec<Diagnostic>>,
    skipped: BTreeMap<String, usize>,
    /// Cluster-wide policies as they were written, by kind and name; none if it has an error.
    cluster_wide: BTreeMap<String, Option<Typed>>,
    places: BTreeMap<String, Location>,
    sources: BTreeMap<Arc<str>, Source>,
    legacy: Legacy,
}

#[derive(Debug)]
struct Source {
    text: String,
    /// Where each line begins; found when first asked for.
    lines: OnceCell<Vec<usize>>,
}

impl Manifests {
    fn assume_namespaces(&mut self) {
        let unknown: BTreeSet<NamespaceName> = self
            .cluster
            .pods()
            .map(|pod| pod.id().namespace().clone())
            .filter(|name| self.cluster.namespace(name).is_none())
            .collect();
        // Whether one is asked for is decided by its labels alone: without a selector there is nothing to say.
        let asked = self.cluster.policies().any(|policy| {
            let rules = Direction::ALL.into_iter().filter_map(|d| policy.rules(d)).flatten();
            let peers = rules.filter_map(|rule| match &rule.matches.peers {
                Match::Any => None,
                Match::OneOf(peers) => Some(peers),
            });
            let mut selections = peers.flatten().filter_map(|peer| match peer {
                Peer::Pods(pods) => Some(pods),
                _ => None,
            });
            selects_namespaces(policy.subject()) || selections.any(selects_namespaces)
        });
        if asked && !unknown.is_empty() {
            let shown: Vec<_> = unknown.iter().take(5).map(|n| quoted(n.as_str())).collect();
            let more = match unknown.len().saturating_sub(shown.len()) {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            let message = format!(
                "no Namespace object for {}{more}: taken to have no label but the name",
                shown.join(", ")
            );
            let hint =
                "read the Namespace objects too, so that namespaceSelectors see their labels";
            let diagnostic = Diagnostic::warning("NP-26", message).with_hint(hint);
            self.diagnostics.push(diagnostic);
        }
        for name in unknown {
            self.cluster.insert_namespace(Namespace::new(name, Labels::new()));
        }
    }

    /// The cluster.
    #[must_use]
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// The workload that a pod belongs to; the pod itself if it has no controller.
    #[must_use]
    pub fn workload(&self, pod: &PodId) -> Workload {
        self.workloads.get(pod).cloned().unwrap_or_else(|| Workload::of_pod(pod))
    }

    /// Everything that is wrong or suspicious in what was read, by file and place.
    #[must_use]
    pub fn diagnostics(&self) -> &[Diagnostic] {
        &self.diagnostics
    }

    /// Legacy policies, and isolating annotations, that were read and have no effect.
    pub fn inert(&self) -> impl Iterator<Item = &Inert> {
        self.legacy.inert()
    }

    pub(crate) fn legacy(&self) -> &Legacy {
        &self.legacy
    }

    /// Cluster-wide policies as they were written, by kind and name; none for one that has an error.
    pub(crate) fn cluster_wide(&self) -> &BTreeMap<String, Option<Typed>> {
        &self.cluster_wide
    }

    /// What a policy says against itself.
    pub(crate) fn remarks(&self, policy: &PolicyId) -> &[Diagnostic] {
        self.remarks.get(policy).map_or(&[], Vec::as_slice)
    }

    /// Is there an error among them?
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.diagnostics.iter().any(|diagnostic| diagnostic.severity() == Severity::Error)
    }

    /// How many objects of which kinds were left out because policy does not depend on them, or because they are not
    /// known here.
    #[must_use]
    pub fn skipped(&self) -> &BTreeMap<String, usize> {
        &self.skipped
    }

    /// Where an object such as `NetworkPolicy shop/web` was written.
    #[must_use]
    pub fn place(&self, object: &str) -> Option<&Location> {
        self.places.get(object)
    }

    /// The line that a diagnostic is about, without its end.
    #[must_use]
    pub fn source_line(&self, at: &Location) -> Option<&str> {
        let source = self.sources.get(&at.file)?;
        let text = source.text.strip_prefix('\u{feff}').unwrap_or(&source.text);
        let lines = source.lines.get_or_init(|| {
            [0].into_iter().chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect()
        });
        let first = *lines.get(usize::try_from(at.line).ok()?.checked_sub(1)?)?;
        text.get(first..)?.lines().next()
    }
}
