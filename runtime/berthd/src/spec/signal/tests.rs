#![allow(clippy::unwrap_used)]
use super::*;

#[test]
fn a_signal_is_known_by_every_spelling() {
    let cases = [
        ("TERM", 15),
        ("SIGTERM", 15),
        ("sigterm", 15),
        ("15", 15),
        ("9", 9),
        ("64", 64),
        ("HUP", 1),
        ("SIGWINCH", 28),
        ("IOT", 6),
        ("CLD", 17),
        ("POLL", 29),
        ("RTMIN", 34),
        ("SIGRTMIN+1", 35),
        ("SIGRTMIN+15", 49),
        ("SIGRTMAX", 64),
        ("SIGRTMAX-14", 50),
        ("SIGRTMINPLUS3", 37),
        ("SIGRTMAXMINUS2", 62),
    ];
    for (text, number) in cases {
        assert_eq!(text.parse::<Signal>().map(Signal::number), Ok(number), "{text}");
    }
}

#[test]
fn what_is_no_signal_is_refused_with_its_name() {
    for text in [
        "",
        "SIG",
        "0",
        "65",
        "-1",
        "+9",
        "SIGNOPE",
        "RTMIN+31",
        "RTMAX-31",
        "RTMIN+",
        "RTMIN-1",
        "RTMIN+99999999999",
        "15 ",
    ] {
        let error = text.parse::<Signal>().unwrap_err();
        assert_eq!(error, Error::invalid("stop signal", text, "no such signal"), "{text}");
    }
}

#[test]
fn every_number_is_shown_so_that_it_reads_back() {
    for number in 1..=RTMAX {
        assert_eq!(Signal(number).to_string().parse(), Ok(Signal(number)), "{number}");
    }
    assert_eq!(Signal::TERM.to_string(), "SIGTERM");
    assert_eq!(Signal(36).to_string(), "SIGRTMIN+2");
}

#[test]
fn a_container_is_stopped_by_its_own_signal_then_the_images_then_sigterm() {
    let cases = [
        ("the container's", Some("INT"), "QUIT", 2),
        ("the image's", None, "SIGQUIT", 3),
        ("the image's for an empty one", Some(""), "SIGQUIT", 3),
        ("neither", None, "", 15),
    ];
    for (name, own, of_image, number) in cases {
        assert_eq!(stop_signal(own, of_image).map(Signal::number), Ok(number), "{name}");
    }
    assert_eq!(stop_signal(None, "SIGNOPE"), Err(Error::invalid("stop signal", "SIGNOPE", "no such signal")));
}
