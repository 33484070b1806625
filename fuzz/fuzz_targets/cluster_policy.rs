//! Feeds `netpol_testkit::fuzz::cluster_policy`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| netpol_testkit::fuzz::cluster_policy(data));
