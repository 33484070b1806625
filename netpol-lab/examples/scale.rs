//! How long a lab of so many pods takes: `cargo run --release -p netpol-lab --example scale -- 100`.
#![expect(clippy::print_stdout, reason = "it prints figures")]

use netpol_core::{PodId, Protocol};
use netpol_lab::{Error, Lab, Place, Plan, Probe, Traffic};
use std::time::Instant;

fn main() -> Result<(), Error> {
    let pods = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(30);
    let started = Instant::now();
    let ids = (0..pods).map(|number: u32| PodId::new("scale", format!("pod-{number}")));
    let mut lab = Lab::new(&ids.fold(Plan::new(), |plan, pod| plan.with_pod(pod, [])))?;
    println!("{pods} pods: built in {:?}", started.elapsed());
    let places: Vec<&Place> = lab.places().filter(|place| matches!(place, Place::Pod(_))).collect();
    let ends: Vec<_> = places.iter().flat_map(|place| lab.addresses(place)).copied().collect();
    let mut probes = Vec::new();
    for &source in &ends {
        for &destination in ends.iter().filter(|end| end.is_ipv4() == source.is_ipv4()) {
            let ports = Protocol::ALL.map(|protocol| Traffic::Port(protocol, 80));
            let traffic = ports.into_iter().chain([Traffic::echo(source)]);
            let probe = |traffic| Probe::new(source, destination, traffic);
            probes.extend(traffic.filter(|_| source != destination).map(probe));
        }
    }
    for round in 1..=3 {
        let started = Instant::now();
        let fates = lab.probe(&probes)?;
        let answered = fates.iter().filter(|fate| fate.answered).count();
        let probes = probes.len();
        println!("round {round}: {answered} of {probes} answered in {:?}", started.elapsed());
    }
    let started = Instant::now();
    drop(lab);
    println!("dropped in {:?}", started.elapsed());
    Ok(())
}
