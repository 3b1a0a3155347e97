use std::fs;

use berth_cri::v1;
use berth_tests::{
    berth::Berth,
    image::{Image, Layer, Tar},
    pod::{pod, shell},
};
use serde_json::json;
use tar::EntryType;

use super::{
    ESCAPED, Host, ROUNDS, SECRET, Swapping, assert_held, attempt, empty_dir, image_with, ordinary, pushed,
    symlink, volume,
};

/// Runs containers with mounts below a directory of a shared volume, while a neighbour swaps that directory with a link to
/// `target`. Fails if a container could see or change files of the host.
async fn race_for_mount_points(berth: &mut Berth, host: &Host, image: &str, name: &str, target: &str) {
    let shared = empty_dir(berth, &format!("shared-{name}"));
    let other = empty_dir(berth, &format!("other-{name}"));
    fs::create_dir(shared.join("swapped")).unwrap();
    symlink(target, shared.join("link")).unwrap();
    fs::write(other.join("file"), "").unwrap();
    let sandbox = pod(berth, name);
    let pod = berth.run(&sandbox).await.unwrap();
    let secret = host.path("secret");
    let script = format!(
        "for way in / /shared/swapped /shared/link /shared/swapped/made /shared/link/made /other; do \
             cat $way{secret}; cat $way/secret; \
         done; true"
    );
    let _neighbour = Swapping::between(shared.join("swapped"), shared.join("link"));
    for round in 0..ROUNDS {
        let mut config = shell("c", image, &script);
        config.mounts = vec![
            volume("/shared", &shared),
            volume("/shared/swapped/made", &other),
            volume("/shared/swapped/deeply/made", &other),
            volume("/shared/swapped/file", &other.join("file")),
        ];
        let outcome = attempt(berth, &sandbox, &pod, config).await;
        assert_held(&format!("{name}, round {round}"), &outcome);
        host.assert_untouched();
    }
}

/// CVE-2021-30465: a mount point is looked up, and then mounted on by name. A neighbour that shares a volume swaps a
/// directory on the way with a link to `/`, so that the mount covers a directory of the host that is the source of a later
/// mount: the container gets the host's root directory.
#[tokio::test(flavor = "multi_thread")]
async fn root_cve_2021_30465_mounts_do_not_land_on_the_host_when_their_place_is_swapped() {
    let mut berth = Berth::start().await;
    let host = Host::new(&berth);
    let image = berth.busybox().await;
    for (name, target) in [("absolute", "/"), ("relative", "../../../../../../../../../..")] {
        race_for_mount_points(&mut berth, &host, &image, name, target).await;
    }
}

/// CVE-2024-45310: the same race for mount points that are created because they are missing. Empty files and directories
/// appear on the host, wherever the link leads.
#[tokio::test(flavor = "multi_thread")]
async fn root_cve_2024_45310_places_of_mounts_are_not_made_on_the_host() {
    let mut berth = Berth::start().await;
    let host = Host::new(&berth);
    let image = berth.busybox().await;
    let target = host.directory.display().to_string();
    race_for_mount_points(&mut berth, &host, &image, "made", &target).await;
}

/// Mount points of volumes, of the pod's files and of `/dev` that are links in the image (CVE-2026-41579 for `/dev`): by
/// name, files of the host would be created, mounted on or removed.
#[tokio::test(flavor = "multi_thread")]
async fn root_places_that_are_links_in_the_image_are_the_containers_own() {
    let mut berth = Berth::start().await;
    let host = Host::new(&berth);
    fs::write(host.directory.join("ptmx"), "").unwrap();
    let host = Host { before: super::entries(&host.directory), ..host };
    let (target, source) = (host.directory.display().to_string(), empty_dir(&berth, "source"));
    fs::write(source.join("mine"), "").unwrap();
    let up = format!("../../../../../../../..{target}");
    for (name, link, mounts) in [
        ("volume", "volume", vec!["/volume", "/volume/new/directory"]),
        ("dev", "dev", vec![]),
        ("etc", "etc", vec![]),
        ("sys", "sys", vec![]),
    ] {
        for (way, leads) in [("absolute", &target), ("relative", &up)] {
            let mut layers = Image::busybox().layers;
            let link = Tar::default().link(EntryType::Symlink, link, leads);
            layers.push(Layer::gzip(link));
            let image = Image::of(layers);
            let name = format!("{name}-{way}");
            let image = pushed(&mut berth, &name, &image).await;
            let sandbox = pod(&berth, &name);
            let pod = berth.run(&sandbox).await.unwrap();
            let mut config = ordinary("c", &image, &format!("cat {target}/secret /volume/secret; true"));
            config.mounts = mounts.iter().map(|place| volume(place, &source)).collect();
            let outcome = attempt(&mut berth, &sandbox, &pod, config).await;
            assert_held(&name, &outcome);
            host.assert_untouched();
        }
    }
}

/// CVE-2022-23648: a volume that the image declares is filled with the image's files at that path, which is looked up by
/// name: `..` or a link shows the container files of the host. Berth fills no volumes; the sub-path of an image that is
/// mounted as a volume is looked up in the same way.
#[tokio::test(flavor = "multi_thread")]
async fn root_cve_2022_23648_volumes_of_an_image_show_nothing_of_the_host() {
    let mut berth = Berth::start().await;
    let host = Host::new(&berth);
    let target = host.directory.display().to_string();
    let up = format!("/../../../../../../../..{target}");
    let mut layers = Image::busybox().layers;
    let tar = Tar::default().link(EntryType::Symlink, "absolute", &target).link(
        EntryType::Symlink,
        "relative",
        &up[1..],
    );
    layers.push(Layer::gzip(tar));
    let mut image = Image::of(layers);
    image.config["Volumes"] = json!({ up.clone(): {}, "/absolute": {}, "/relative": {} });
    let image = pushed(&mut berth, "volumes", &image).await;
    let sandbox = pod(&berth, "volumes");
    let pod = berth.run(&sandbox).await.unwrap();
    let read = format!("cat {target}/secret /absolute/secret /relative/secret /volume/secret /volume; true");
    let outcome = attempt(&mut berth, &sandbox, &pod, shell("c", &image, &read)).await;
    assert!(!outcome.unwrap().contains(SECRET));
    for part in [up.as_str(), &up[1..], "absolute", "relative", "absolute/secret", "relative/secret"] {
        let mut config = shell("c", &image, &read);
        config.mounts = vec![v1::Mount {
            container_path: "/volume".into(),
            image: Some(v1::ImageSpec { image: image.clone(), ..Default::default() }),
            image_sub_path: part.into(),
            readonly: true,
            ..Default::default()
        }];
        let outcome = attempt(&mut berth, &sandbox, &pod, config).await;
        assert_held(part, &outcome);
    }
    host.assert_untouched();
}

/// CVE-2019-19921, CVE-2023-27561 and CVE-2023-28642: `/proc` of the image is a link into a shared volume. procfs is
/// mounted where the link leads, but the masks and read-only mounts land elsewhere, because the neighbour has swapped the
/// directory meanwhile: the kernel's parameters can be written.
#[tokio::test(flavor = "multi_thread")]
async fn root_cve_2019_19921_proc_is_not_mounted_where_a_link_leads_to() {
    let mut berth = Berth::start().await;
    let image = Tar::default().link(EntryType::Symlink, "proc", "/shared/swapped/level");
    let image = image_with(&mut berth, "linked", image).await;
    let shared = empty_dir(&berth, "shared");
    for name in ["swapped/level", "other/level"] {
        fs::create_dir_all(shared.join(name)).unwrap();
    }
    let sandbox = pod(&berth, "linked");
    let pod = berth.run(&sandbox).await.unwrap();
    let script = format!(
        "for proc in /proc /shared/swapped/level /shared/other/level; do \
             (: >> $proc/sys/kernel/core_pattern) && echo {ESCAPED}; \
             (: >> $proc/sysrq-trigger) && echo {ESCAPED}; \
         done; true"
    );
    let _neighbour = Swapping::between(shared.join("swapped"), shared.join("other"));
    for round in 0..ROUNDS {
        let mut config = ordinary("c", &image, &script);
        config.mounts = vec![volume("/shared", &shared)];
        let outcome = attempt(&mut berth, &sandbox, &pod, config).await;
        assert_held(&format!("round {round}"), &outcome);
    }
}
