#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::*;

const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

#[test]
fn known_content_has_its_known_digest() {
    assert_eq!(Digest::sha256(b"").to_string(), EMPTY);
    let sha512 = Digest::of(Algorithm::Sha512, b"abc").to_string();
    assert!(sha512.starts_with("sha512:ddaf35a193617abacc417349ae204131"), "{sha512}");
}

#[test]
fn hashing_piece_by_piece_is_hashing_the_whole() {
    let mut hasher = Digest::sha256(b"").hasher();
    b"one two three".chunks(4).for_each(|piece| hasher.update(piece));
    assert_eq!(hasher.finish(), Digest::sha256(b"one two three"));
}

#[test]
fn a_digest_is_printed_as_it_was_read() {
    for text in [EMPTY.to_owned(), format!("sha512:{}", "0f".repeat(64))] {
        let digest: Digest = text.parse().unwrap();
        assert_eq!(digest.to_string(), text);
        let json = serde_json::to_string(&digest).unwrap();
        assert_eq!(json, format!("{text:?}"));
        assert_eq!(serde_json::from_str::<Digest>(&json).unwrap(), digest);
    }
}

#[test]
fn what_is_no_digest_is_refused() {
    let hex = &EMPTY[7..];
    for text in [
        "",
        ":",
        hex,
        "sha256:",
        "sha256",
        &EMPTY[..70],
        &format!("{EMPTY}0"),
        &EMPTY.to_uppercase(),
        &format!("sha256:{}", hex.to_uppercase()),
        &format!("sha256:{}", "../".repeat(22).split_at(64).0),
        &format!("md5:{}", "0".repeat(32)),
        &format!("sha512:{hex}"),
        &format!("sha256:{}", "é".repeat(32)),
        &format!(" {EMPTY}"),
    ] {
        assert!(text.parse::<Digest>().is_err(), "{text:?}");
        assert!(serde_json::from_value::<Digest>(text.into()).is_err());
    }
}

#[test]
fn digests_sort_by_algorithm_and_value() {
    let mut all = ["c", "a", "b"].map(|text| Digest::sha256(text.as_bytes()));
    all.sort();
    assert!(all.windows(2).all(|pair| pair[0].hex() < pair[1].hex()));
}
