//! Feeds `netpol_testkit::fuzz::iptables_save`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| netpol_testkit::fuzz::iptables_save(data));
