use proptest::prelude::*;

use super::*;
use crate::fake::Tree;

const CAPTURED: &[u8] = include_bytes!("../fixtures/conntrack-6.18/nf_conntrack");
const NAMES: &str = "entries insert insert_failed drop early_drop\n";
const ALL_IDS: &str = "         0          0 4294967295\n";

#[test]
fn file_tables_by_text() {
    let cases = [
        ("2117\t0\t2466177\n", Some((2117, 2_466_177))),
        ("1 0 18446744073709551615", Some((1, u64::MAX))),
        ("1 2", None),
        ("1 x 3", None),
        ("-1 0 3", None),
        ("", None),
    ];
    for (text, expected) in cases {
        assert_eq!(parse_file_nr(text.as_bytes()).got().copied(), expected, "{text:?}");
    }
}

#[test]
fn a_captured_table_of_connections_counts_its_entries_once() {
    let expected =
        ConntrackRaw { entries: 19, max: 50, drops: 0, early_drops: 0, insert_failed: 0 };
    assert_eq!(parse_conntrack(CAPTURED, 50), Reading::Got(expected));
}

#[test]
fn columns_are_found_by_name_and_summed_over_the_cpus() {
    let text = format!("{NAMES}0000000a 1 2 3 4\n0000000a 10 20 30 fFfFfFfF\n");
    let expected = ConntrackRaw {
        entries: 10,
        max: 50,
        drops: 0x33,
        early_drops: 4 + u64::from(u32::MAX),
        insert_failed: 0x22,
    };
    assert_eq!(parse_conntrack(text.as_bytes(), 50), Reading::Got(expected));
    for text in ["", "entries drop\n1 2\n", NAMES, &format!("{NAMES}1 2 3\n"), "\n\n"] {
        let parsed = parse_conntrack(text.as_bytes(), 50);
        assert_eq!(parsed.absence().unwrap().why, Why::Malformed, "{text:?}");
    }
}

#[test]
fn no_limit_is_not_a_limit_of_nothing() {
    for (text, max) in
        [("262144\n", Some(262_144)), ("0\n", Some(u32::MAX)), ("", None), ("-1", None)]
    {
        assert_eq!(parse_conntrack_max(text.as_bytes()).got().copied(), max, "{text:?}");
    }
}

#[test]
fn capabilities_by_line() {
    let cases = [
        ("Name:\ta\nCapEff:\t000001ffffffffff\n", Some(true)),
        ("CapPrm:\t000001ffffffffff\nCapEff:\t0000000000000000\n", Some(false)),
        ("CapEff:\t0000000000200000\n", Some(true)),
        ("CapEff:\t0000000000100000\n", Some(false)),
        ("CapEff:\t\n", None),
        ("Name:\tCapEff:\n", None),
        ("", None),
    ];
    for (text, expected) in cases {
        assert_eq!(parse_has_capability(text.as_bytes(), CAP_SYS_ADMIN), expected, "{text:?}");
    }
}

/// A tree with everything in it, for process 42.
fn tree(cap_eff: &str, uid_map: &str) -> Tree {
    let tree = Tree::new();
    tree.file("sys/fs/file-nr", "7\t0\t100\n");
    tree.file("sys/net/netfilter/nf_conntrack_max", "50\n");
    tree.file("42/net/stat/nf_conntrack", &format!("{NAMES}00000030 0 0 5 0\n"));
    tree.file("42/status", &format!("CapEff:\t{cap_eff}\n"));
    tree.file("42/uid_map", uid_map);
    tree
}

#[test]
fn both_tables_and_the_rights_to_go_beyond() {
    let all = "000001ffffffffff";
    let cases = [
        (all, ALL_IDS, Some(true)),
        // A capability in a user namespace of its own does not count.
        (all, "0 1000 1\n", Some(false)),
        ("0000000000000000", ALL_IDS, Some(false)),
        ("x", ALL_IDS, None),
    ];
    for (cap_eff, uid_map, exempt) in cases {
        let tree = tree(cap_eff, uid_map);
        let expected = TablesRaw {
            files: Reading::Got(FileTableRaw { open: 7, max: 100, exempt }),
            conntrack: Reading::Got(ConntrackRaw {
                entries: 48,
                max: 50,
                drops: 5,
                early_drops: 0,
                insert_failed: 0,
            }),
        };
        assert_eq!(read(tree.root(), 42), Reading::Got(expected), "{cap_eff} {uid_map}");
    }
}

#[test]
fn rights_stand_until_they_are_asked_for_again() {
    let tree = tree("0000000000200000", ALL_IDS);
    let mut watch = Watch::new(tree.root(), 42);
    let mut exempt = |rights| watch.read(rights).got().unwrap().files.got().unwrap().exempt;
    assert_eq!(exempt(false), None, "never asked");
    assert_eq!(exempt(true), Some(true));
    tree.file("42/status", "CapEff:\t0\n");
    assert_eq!(exempt(false), Some(true));
    assert_eq!(exempt(true), Some(false));
}

#[test]
fn a_kernel_that_tracks_no_connections_is_not_an_empty_table() {
    let tree = Tree::new();
    tree.file("sys/fs/file-nr", "7\t0\t100\n");
    tree.folder("42");
    let tables = read(tree.root(), 42);
    let tables = tables.got().unwrap();
    assert_eq!(tables.conntrack.absence().unwrap().why, Why::Unsupported);
    assert!(tables.files.got().is_some());
    assert_eq!(read(tree.root(), 43).absence().unwrap().why, Why::Gone);
}

#[test]
fn of_the_own_namespace_the_file_stays_open_and_of_others_not() {
    let mut watch = Watch::new(Path::new("/proc"), std::process::id() as i32);
    if watch.read(false).got().unwrap().conntrack.got().is_none() {
        println!("did not run: no connection tracking here");
        return;
    }
    assert!(watch.conntrack.inode().is_some());
    for _ in 1..REOPEN_EVERY {
        assert!(watch.read(false).got().is_some());
    }
    assert!(watch.conntrack.inode().is_none(), "now and then it is opened anew");

    let tree = tree("0", ALL_IDS);
    let mut watch = Watch::new(tree.root(), 42);
    for _ in 0..2 {
        assert!(watch.read(false).got().unwrap().conntrack.got().is_some());
        assert!(watch.conntrack.inode().is_none());
    }
}

proptest! {
    #[test]
    fn parsing_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        parse_file_nr(&bytes);
        parse_conntrack(&bytes, u32::MAX);
        parse_conntrack_max(&bytes);
        parse_has_capability(&bytes, CAP_SYS_ADMIN);
        is_first_user_namespace(&bytes);
    }

    #[test]
    fn parsing_a_damaged_table_never_panics(
        at in 0..CAPTURED.len(), value in any::<u8>(), cut in 0..CAPTURED.len(),
    ) {
        let mut bytes = CAPTURED.to_vec();
        bytes[at] = value;
        bytes.truncate(cut);
        parse_conntrack(&bytes, u32::MAX);
    }
}
