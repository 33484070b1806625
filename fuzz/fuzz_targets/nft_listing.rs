//! Feeds `netpol_testkit::fuzz::nft_listing`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| netpol_testkit::fuzz::nft_listing(data));
