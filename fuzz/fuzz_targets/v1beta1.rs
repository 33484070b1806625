//! Feeds `netpol_testkit::fuzz::v1beta1`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| netpol_testkit::fuzz::v1beta1(data));
