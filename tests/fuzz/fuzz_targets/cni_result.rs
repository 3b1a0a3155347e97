//! See `berth_fuzz::cni_result`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| berth_fuzz::cni_result(data));
