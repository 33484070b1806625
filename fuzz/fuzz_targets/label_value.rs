//! Feeds `netpol_testkit::fuzz::label_value`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| netpol_testkit::fuzz::label_value(data));
