//! Parsing a listing and proving a node: `cargo bench -p netpol-verify`, as root.
//!
//! The figures of one run belong together; `docs/proof.md` says how to read them. Larger nodes, and memory:
//! `cargo run --release -p netpol-verify --example proof`.
#![expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a bench ends where something is not as it must be"
)]

mod node;

use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use netpol_core::Options;
use netpol_iptables::Flavor;
use netpol_verify::{Dump, Specification, prove, read_dumps};
use node::Node;
use std::sync::OnceLock;

/// Pods, policies, and pods of the node.
const SIZES: [(usize, usize, usize); 2] = [(1_000, 100, 30), (10_000, 1_000, 110)];

fn main() {
    divan::main();
}

/// A node and its listings, made once: of nft, and of iptables.
fn node((pods, policies, local): (usize, usize, usize)) -> &'static (Node, [Vec<Dump>; 2]) {
    static NODES: [OnceLock<(Node, [Vec<Dump>; 2])>; 2] = [const { OnceLock::new() }; 2];
    let at = SIZES.iter().position(|size| *size == (pods, policies, local)).unwrap();
    NODES[at].get_or_init(|| {
        let node = Node::new(pods, policies, local);
        let dumps = [None, Some(Flavor::Nft)].map(|flavor| node.dumps(flavor));
        (node, dumps)
    })
}

fn parse(bencher: Bencher<'_, '_>, size: (usize, usize, usize), back_end: usize) {
    let dumps = &node(size).1[back_end];
    let bytes: usize = dumps.iter().map(|dump| dump.text.len()).sum();
    bencher.counter(BytesCount::new(bytes)).bench(|| read_dumps(black_box(dumps)).unwrap());
}

/// The proof with the specification, of all pods or of one.
fn prove_node(bencher: Bencher<'_, '_>, size: (usize, usize, usize), back_end: usize, one: bool) {
    let (node, dumps) = node(size);
    let machine = read_dumps(&dumps[back_end]).unwrap();
    let options = node.options();
    let options = if one { options.with_only([node.pod()].into()) } else { options };
    bencher.bench(|| {
        let specification = Specification::new(&node.cluster, Some(&node.name), Options::default());
        let report = prove(black_box(&machine), &specification, &options);
        assert!(report.is_proved());
        report
    });
}

#[divan::bench_group(sample_count = 10)]
mod nft {
    use super::{Bencher, SIZES};

    #[divan::bench(args = SIZES)]
    fn parse(bencher: Bencher<'_, '_>, size: (usize, usize, usize)) {
        super::parse(bencher, size, 0);
    }

    #[divan::bench(args = SIZES)]
    fn prove(bencher: Bencher<'_, '_>, size: (usize, usize, usize)) {
        super::prove_node(bencher, size, 0, false);
    }

    #[divan::bench(args = SIZES)]
    fn prove_one_pod(bencher: Bencher<'_, '_>, size: (usize, usize, usize)) {
        super::prove_node(bencher, size, 0, true);
    }
}

#[divan::bench_group(sample_count = 5)]
mod iptables {
    use super::{Bencher, SIZES};

    #[divan::bench(args = SIZES)]
    fn parse(bencher: Bencher<'_, '_>, size: (usize, usize, usize)) {
        super::parse(bencher, size, 1);
    }

    #[divan::bench(args = SIZES)]
    fn prove(bencher: Bencher<'_, '_>, size: (usize, usize, usize)) {
        super::prove_node(bencher, size, 1, false);
    }

    #[divan::bench(args = SIZES)]
    fn prove_one_pod(bencher: Bencher<'_, '_>, size: (usize, usize, usize)) {
        super::prove_node(bencher, size, 1, true);
    }
}
