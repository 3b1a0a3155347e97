#![allow(clippy::unwrap_used)]
use super::*;

const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/sh\n\
    # a comment\n\
    broken:x\n\
    half:x:notanumber:7::/home/half:/bin/sh\n\
    :x:66:66::/:/bin/sh\n\
    web:x:33:34:web:/var/www:/bin/sh\n\
    web:x:99:99:second:/:/bin/sh\n\
    bare:x:50:51\n\
    odd:x:52:53:odd:relative/home:/bin/sh\n\
    latin\xe9:x:60:60::/:/bin/sh\r\n\
    1000:x:7000:7000:a number for a name:/:/bin/sh\n\
    dev:x:1000:1000::/home/dev:/bin/sh";

const GROUP: &[u8] = b"root:x:0:\n\
    adm:x:4:web,dev\n\
    web:x:34:web\n\
    audio:x:29:dev,,web\n\
    docker:x:998:dev\n\
    nonsense\n\
    nogid:x:none:web\n\
    nomembers:x:77";

fn accounts() -> Accounts {
    Accounts::parse(PASSWD, GROUP)
}

fn of_image(image_user: &str) -> Result<ResolvedUser, Error> {
    resolve(&Security::default(), image_user, &accounts())
}

#[test]
fn the_images_user_is_found_in_its_own_accounts() {
    let cases: [(&str, u32, u32, &[u32], &str); 14] = [
        ("", 0, 0, &[0], "/root"),
        ("0", 0, 0, &[0], "/root"),
        ("root", 0, 0, &[0], "/root"),
        ("33", 33, 34, &[4, 29, 34], "/var/www"),
        ("web", 33, 34, &[4, 29, 34], "/var/www"),
        ("web:", 33, 34, &[4, 29, 34], "/var/www"),
        ("web:audio", 33, 29, &[4, 29, 34], "/var/www"),
        ("web:7", 33, 7, &[4, 7, 29, 34], "/var/www"),
        ("33:nomembers", 33, 77, &[4, 29, 34, 77], "/var/www"),
        (":audio", 0, 29, &[29], "/root"),
        ("4242", 4242, 0, &[0], "/"),
        ("4242:4343", 4242, 4343, &[4343], "/"),
        ("bare", 50, 51, &[51], "/"),
        ("odd", 52, 53, &[53], "/"),
    ];
    for (user, uid, gid, groups, home) in cases {
        let expected = ResolvedUser { uid, gid, additional_gids: groups.to_vec(), home: home.to_owned() };
        assert_eq!(of_image(user), Ok(expected), "{user:?}");
    }
}

#[test]
fn digits_are_a_number_even_where_a_user_is_called_so() {
    assert_eq!(of_image("1000").unwrap().gid, 1000);
}

#[test]
fn the_highest_ids_are_taken_and_the_reserved_one_is_not() {
    assert_eq!(of_image("4294967294:4294967294").unwrap().uid, 4_294_967_294);
    for user in ["4294967295", "-1", "0:4294967295", "99999999999999999999999", "0:99999999999999999999999"] {
        let error = of_image(user).unwrap_err();
        assert!(
            matches!(&error, Error::Invalid { field: "user", value, .. } if value == user),
            "{user}: {error}"
        );
    }
}

#[test]
fn an_unknown_name_is_an_error_that_says_it() {
    assert_eq!(of_image("foo"), Err(Error::UnknownUser("foo".to_owned())));
    assert_eq!(of_image("broken"), Err(Error::UnknownUser("broken".to_owned())));
    assert_eq!(of_image("half"), Err(Error::UnknownUser("half".to_owned())));
    assert_eq!(of_image("web:foo"), Err(Error::UnknownGroup("foo".to_owned())));
    assert_eq!(of_image("0:nogid"), Err(Error::UnknownGroup("nogid".to_owned())));
    assert_eq!(
        of_image("foo").unwrap_err().to_string(),
        "user foo: no matching entry in the image's /etc/passwd"
    );
    assert!(of_image("a:b:c").is_err());
}

#[test]
fn the_containers_user_takes_the_place_of_the_images() {
    let web = || Some(UserName::Name("web".to_owned()));
    let cases = [
        ("a number", Some(UserName::Id(1000)), None, Ok((1000, 1000))),
        ("a number and a group", Some(UserName::Id(1000)), Some(5), Ok((1000, 5))),
        ("a name", web(), None, Ok((33, 34))),
        ("a name and a group", web(), Some(5), Ok((33, 5))),
        ("an unknown number", Some(UserName::Id(31337)), None, Ok((31337, 0))),
        ("a number as a name", Some(UserName::Name("33".to_owned())), None, Ok((33, 34))),
        (
            "an unknown name",
            Some(UserName::Name("foo".to_owned())),
            None,
            Err(Error::UnknownUser("foo".to_owned())),
        ),
        ("a group alone", None, Some(5), Err(Error::GroupWithoutUser(5))),
        ("nothing", None, None, Ok((50, 51))),
    ];
    for (name, user, group, expected) in cases {
        let security = Security { user, group, ..Default::default() };
        let found = resolve(&security, "bare", &accounts()).map(|user| (user.uid, user.gid));
        assert_eq!(found, expected, "{name}");
    }
}

#[test]
fn supplemental_groups_join_those_of_the_image_unless_strict() {
    let cases: [(&str, bool, &[u32], &[u32]); 4] = [
        ("merged", false, &[1234], &[4, 29, 998, 1000, 1234]),
        ("merged without any of its own", false, &[], &[4, 29, 998, 1000]),
        ("strict", true, &[1234, 4, 1234], &[4, 1000, 1234]),
        ("strict without any of its own", true, &[], &[1000]),
    ];
    for (name, strict_groups, asked, expected) in cases {
        let security = Security {
            user: Some(UserName::Id(1000)),
            supplemental_groups: asked.to_vec(),
            strict_groups,
            ..Default::default()
        };
        assert_eq!(resolve(&security, "", &accounts()).unwrap().additional_gids, expected, "{name}");
    }
}

#[test]
fn an_image_without_accounts_has_numbers_only() {
    let empty = Accounts::default();
    let root = ResolvedUser { uid: 0, gid: 0, additional_gids: vec![0], home: "/".to_owned() };
    assert_eq!(resolve(&Security::default(), "", &empty), Ok(root));
    assert_eq!(resolve(&Security::default(), "root", &empty), Err(Error::UnknownUser("root".to_owned())));
}
