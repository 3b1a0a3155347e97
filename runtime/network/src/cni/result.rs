//! Results of plugins: any version from 0.1.0 on, converted to the version of the chain.

use std::net::IpAddr;
use std::path::PathBuf;

use serde_json::{Map, Value, json};

use super::version::Version;
use crate::Interface;

/// Converts a plugin's result to `version`, keeping every field that exists there.
pub(super) fn convert(result: Value, version: Version) -> Result<Value, String> {
    let Value::Object(mut result) = result else { return Err("it is no JSON object".into()) };
    if is_0_2(&result) {
        result = from_0_2(&result)?;
    }
    let written = result.get("cniVersion").and_then(Value::as_str).unwrap_or(version.as_str()).to_owned();
    if Version::parse(&written).is_none() && !matches!(written.as_str(), "0.1.0" | "0.2.0") {
        return Err(format!("its cniVersion {written:?} is unknown"));
    }
    for address in result.get_mut("ips").and_then(Value::as_array_mut).into_iter().flatten() {
        convert_address(address, version)?;
    }
    result.insert("cniVersion".into(), version.as_str().into());
    Ok(Value::Object(result))
}

fn is_0_2(result: &Map<String, Value>) -> bool {
    matches!(result.get("cniVersion").and_then(Value::as_str), Some("0.1.0" | "0.2.0"))
        || (!result.contains_key("ips") && (result.contains_key("ip4") || result.contains_key("ip6")))
}

/// Converts a result of version 0.1.0 or 0.2.0: one address per IP family, with its routes inside, and no interfaces.
fn from_0_2(old: &Map<String, Value>) -> Result<Map<String, Value>, String> {
    let (mut ips, mut routes) = (Vec::new(), Vec::new());
    for key in ["ip4", "ip6"] {
        let Some(part) = old.get(key) else { continue };
        let address = part.get("ip").ok_or_else(|| format!("{key} has no ip"))?;
        let mut entry = Map::from_iter([("address".to_owned(), address.clone())]);
        entry.extend(part.get("gateway").map(|gateway| ("gateway".to_owned(), gateway.clone())));
        ips.push(Value::Object(entry));
        routes.extend(part.get("routes").and_then(Value::as_array).into_iter().flatten().cloned());
    }
    let mut new = Map::from_iter([("ips".to_owned(), json!(ips)), ("routes".to_owned(), json!(routes))]);
    new.extend(old.get("dns").map(|dns| ("dns".to_owned(), dns.clone())));
    Ok(new)
}

fn convert_address(entry: &mut Value, version: Version) -> Result<(), String> {
    let address = address(entry)?;
    let Value::Object(entry) = entry else { return Err("an entry of ips is no JSON object".into()) };
    match version.addresses_carry_version() {
        true => entry.insert("version".into(), if address.is_ipv4() { "4" } else { "6" }.into()),
        false => entry.remove("version"),
    };
    Ok(())
}

fn address(entry: &Value) -> Result<IpAddr, String> {
    let text = entry.get("address").and_then(Value::as_str).ok_or("an entry of ips has no address")?;
    let ip = text.split_once('/').map_or(text, |(ip, _)| ip);
    ip.parse().map_err(|_| format!("{text:?} is no address"))
}

/// Returns the addresses of a converted result, in its order.
pub(super) fn addresses(result: &Value) -> Result<Vec<IpAddr>, String> {
    list(result, "ips").map(address).collect()
}

/// Returns the interfaces of a converted result.
pub(super) fn interfaces(result: &Value) -> Vec<Interface> {
    let text = |entry: &Value, key: &str| {
        entry.get(key).and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned)
    };
    let interface = |entry: &Value| Interface {
        name: text(entry, "name").unwrap_or_default(),
        mac: text(entry, "mac"),
        sandbox: text(entry, "sandbox").map(PathBuf::from),
    };
    list(result, "interfaces").map(interface).collect()
}

fn list<'a>(result: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    result.get(key).and_then(Value::as_array).into_iter().flatten()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_result_of_0_2_becomes_one_of_1_0() {
        let old = json!({
            "cniVersion": "0.2.0",
            "ip4": {"ip": "10.1.0.5/16", "gateway": "10.1.0.1", "routes": [{"dst": "0.0.0.0/0"}]},
            "ip6": {"ip": "fd00::5/64"}, "dns": {"nameservers": ["10.1.0.1"]},
        });
        let expected = json!({
            "cniVersion": "1.0.0", "dns": {"nameservers": ["10.1.0.1"]}, "routes": [{"dst": "0.0.0.0/0"}],
            "ips": [{"address": "10.1.0.5/16", "gateway": "10.1.0.1"}, {"address": "fd00::5/64"}],
        });
        assert_eq!(convert(old, Version::V1_0_0).unwrap(), expected);
    }

    #[test]
    fn addresses_gain_and_lose_their_version_field() {
        let new = json!({"cniVersion": "1.1.0", "ips": [{"address": "10.1.0.5/16", "interface": 1}], "x": 1});
        let old = json!({"cniVersion": "0.4.0",
            "ips": [{"address": "10.1.0.5/16", "interface": 1, "version": "4"}], "x": 1});
        assert_eq!(convert(new.clone(), Version::V0_4_0).unwrap(), old);
        assert_eq!(convert(old, Version::V1_1_0).unwrap(), new);
    }

    #[test]
    fn addresses_and_interfaces_are_read_in_order() {
        let result = json!({
            "ips": [{"address": "fd00::5/64"}, {"address": "10.0.0.5/24"}],
            "interfaces": [{"name": "cni0", "mac": "aa:bb"}, {"name": "eth0", "sandbox": "/run/netns/x"}],
        });
        let ips: Vec<String> = addresses(&result).unwrap().iter().map(IpAddr::to_string).collect();
        assert_eq!(ips, ["fd00::5", "10.0.0.5"]);
        let interfaces = interfaces(&result);
        assert_eq!((interfaces[0].sandbox.as_deref(), interfaces[0].mac.as_deref()), (None, Some("aa:bb")));
        assert_eq!(interfaces[1].sandbox.as_deref(), Some("/run/netns/x".as_ref()));
    }

    #[test]
    fn what_is_no_result_is_refused_with_the_reason() {
        let cases = [
            (json!([]), "no JSON object"),
            (json!({"cniVersion": "7.0.0"}), "7.0.0"),
            (json!({"ips": [{}]}), "no address"),
            (json!({"ips": [{"address": "ten"}]}), "\"ten\" is no address"),
            (json!({"cniVersion": "0.2.0", "ip4": {}}), "ip4 has no ip"),
        ];
        for (result, reason) in cases {
            let why = convert(result.clone(), Version::V1_0_0).unwrap_err();
            assert!(why.contains(reason), "{result}: {why}");
        }
    }
}
