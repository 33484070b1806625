//! Feeds `netpol_testkit::fuzz::alpha`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| netpol_testkit::fuzz::alpha(data));
