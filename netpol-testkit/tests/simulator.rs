//! The compiler and the simulator agree with the specification: on samples, and through edits.
use netpol_core::Options;
use netpol_sim::Simulator;
use netpol_testkit::strategies::{
    clusters, clusters_with_connections, connection_seeds, edit_seeds, options,
};
use netpol_testkit::{Judge, Reference, agrees};
use proptest::collection::vec;
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn on_new_connections(
        (cluster, connections) in clusters_with_connections(),
        options in options(),
    ) {
        agrees(&mut Simulator::default(), &options, &cluster, &connections)?;
    }

    #[test]
    fn on_connections_that_were_open_before_edits(
        mut cluster in clusters(),
        seeds in vec(connection_seeds(), 1..8),
        edits in vec(edit_seeds(), 1..6),
        options in options(),
    ) {
        let mut judges: [Box<dyn Judge>; 2] =
            [Box::new(Reference::new()), Box::new(Simulator::default())];
        let connections: Vec<_> = seeds.iter().map(|seed| seed.resolve(&cluster)).collect();
        let mut ask = |options: Option<&Options>, cluster: &_, open: bool| {
            judges.each_mut().map(|judge| {
                if let Some(options) = options {
                    judge.start(options);
                }
                judge.replace(cluster);
                let answer = |c| if open { judge.connect(c) } else { judge.established(c) };
                connections.iter().map(answer).collect::<Vec<bool>>()
            })
        };
        let [expected, got] = ask(Some(&options), &cluster, true);
        prop_assert_eq!(got, expected);
        for edit in edits.iter() {
            let Some(edit) = edit.resolve(&cluster) else { continue };
            edit.apply(&mut cluster);
            let [expected, got] = ask(None, &cluster, false);
            prop_assert_eq!(got, expected, "after {:?}", edit);
        }
    }
}
