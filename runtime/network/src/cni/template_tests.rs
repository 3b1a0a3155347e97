#![allow(clippy::unwrap_used)]
use super::*;

fn filled(template: &str) -> Result<String, String> {
    let list = |items: &[&str]| Value::List(items.iter().map(|item| (*item).to_owned()).collect());
    render(
        template,
        &[
            ("PodCIDR", Value::Text("10.1.0.0/16".into())),
            ("PodCIDRRanges", list(&["10.1.0.0/16", "fd00::/64"])),
            ("Routes", list(&["0.0.0.0/0", "::/0"])),
            ("None", list(&[])),
        ],
    )
}

/// The template in containerd's documentation.
#[test]
fn a_template_of_containerds_documentation_is_filled_in() {
    let template = r#"{"name": "k8s", "cniVersion": "1.0.0", "plugins": [{"type": "ptp", "ipam": {
  "type": "host-local",
  "subnet": "{{.PodCIDR}}",
  "ranges": [{{range $i, $range := .PodCIDRRanges}}{{if $i}}, {{end}}[{"subnet": "{{$range}}"}]{{end}}],
  "routes": [{{ range $i, $route := .Routes }}{{ if $i }}, {{ end }}{"dst": "{{ $route }}"}{{ end }}]
}}]}"#;
    let filled: serde_json::Value = serde_json::from_str(&filled(template).unwrap()).unwrap();
    let ipam = &filled["plugins"][0]["ipam"];
    assert_eq!(ipam["subnet"], "10.1.0.0/16");
    assert_eq!(ipam["ranges"].to_string(), r#"[[{"subnet":"10.1.0.0/16"}],[{"subnet":"fd00::/64"}]]"#);
    assert_eq!(ipam["routes"].to_string(), r#"[{"dst":"0.0.0.0/0"},{"dst":"::/0"}]"#);
}

#[test]
fn other_ways_to_write_it_are_understood() {
    for (template, expected) in [
        ("plain", "plain"),
        ("{{range .Routes}}<{{.}}>{{end}}", "<0.0.0.0/0><::/0>"),
        ("{{range $route := .Routes}}{{$route}};{{end}}", "0.0.0.0/0;::/0;"),
        ("{{range .None}}x{{else}}none{{end}}", "none"),
        ("{{if .None}}x{{else}}y{{end}}{{if .PodCIDR}}z{{end}}", "yz"),
        ("a {{- .PodCIDR -}} \n b", "a10.1.0.0/16b"),
        ("a{{/* never mind */}}b", "ab"),
        ("{{range $i, $a := .Routes}}{{range $j, $b := .Routes}}{{$i}}{{$j}} {{end}}{{end}}", "00 01 10 11 "),
    ] {
        assert_eq!(filled(template).unwrap(), expected, "{template}");
    }
}

#[test]
fn what_is_not_understood_is_refused_by_name() {
    for (template, word) in [
        ("{{.PodCIDR", "without }}"),
        ("{{.Nothing}}", ".Nothing"),
        ("{{$i}}", "$i"),
        ("{{.}}", "{{.}}"),
        ("{{.Routes}}", "needs a range"),
        ("{{range .PodCIDR}}{{end}}", "no list"),
        ("{{range .Routes}}", "without {{end}}"),
        ("{{if .Routes}}{{else}}", "without {{end}}"),
        ("{{end}}", "without a beginning"),
        ("{{len .Routes}}", "len .Routes"),
        ("{{if eq .PodCIDR \"x\"}}{{end}}", "is not supported"),
        ("{{index .Routes 0}}", "index .Routes 0"),
        ("{{.PodCIDR | printf \"%s\"}}", "is not supported"),
        ("{{$.PodCIDR}}", "$.PodCIDR"),
        ("{{}}", "is not supported"),
    ] {
        let why = filled(template).unwrap_err();
        assert!(why.contains(word), "{template}: {why}");
    }
}
