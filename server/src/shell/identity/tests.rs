//! Tests of the IDENTITY file and the directory's lock.

use super::*;

fn formation() -> Formation {
    let node = |node_id| NodeDescriptor {
        node_id,
        peer_address: format!("n{node_id}:8080"),
        directory_id: u64::MAX - node_id,
        ..Default::default()
    };
    Formation {
        cluster_id: u64::MAX,
        nodes: vec![node(1), node(2)],
        replication_factor: 3,
        split_keys: vec!["/m".to_owned()],
        founded_unix_ms: 1_780_000_000_000,
    }
}

/// Writes an identity with the right checksum, after `change` to its text.
fn write_changed(dir: &Path, change: impl Fn(&str) -> String) {
    let file = dir.join(IDENTITY_FILE);
    let text = std::fs::read_to_string(&file).unwrap();
    let json = change(text.lines().next().unwrap());
    let crc32 = crc32fast::hash(json.as_bytes());
    std::fs::write(&file, format!("{json}\n{crc32:08x}\n")).unwrap();
}

#[test]
fn what_was_updated_is_there_when_opened_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("deep/data");
    let ballot = Ballot { round: 3, directory_id: 9 };
    let membership = Membership { cluster_id: u64::MAX, node_id: 2 };
    let before = {
        let data = DataDir::open(&path).unwrap();
        data.update(|identity| {
            identity.set_promised(ballot);
            identity.set_accepted(ballot, &formation());
            identity.become_member(membership, Some(&formation()));
            identity.set_nodes(&formation().nodes);
        })
        .unwrap();
        data.identity()
    };
    let after = DataDir::open(&path).unwrap().identity();
    assert_eq!(before, after);
    assert_eq!(after.membership(), Some(membership));
    assert_eq!(after.accepted(), Some((ballot, formation())));
    assert_eq!(after.formation(), Some(formation()));
    assert_eq!(after.nodes(), formation().nodes);
}

#[test]
fn a_directory_has_one_process_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let first = DataDir::open(dir.path()).unwrap();
    assert!(matches!(DataDir::open(dir.path()), Err(IdentityError::InUse(_))));
    drop(first);
    DataDir::open(dir.path()).unwrap();
}

#[test]
fn another_format_is_refused_whatever_else_it_holds() {
    for other in [FORMAT_VERSION - 1, FORMAT_VERSION + 1] {
        let dir = tempfile::tempdir().unwrap();
        drop(DataDir::open(dir.path()).unwrap());
        write_changed(dir.path(), |_| format!(r#"{{"format_version":{other},"anything":[]}}"#));
        let error = DataDir::open(dir.path()).err().unwrap();
        let is_refused =
            matches!(error, IdentityError::OtherFormat { found, .. } if found == other);
        assert!(is_refused, "{error}");
    }
}

#[test]
fn every_flipped_bit_is_found() {
    let dir = tempfile::tempdir().unwrap();
    drop(DataDir::open(dir.path()).unwrap());
    let file = dir.path().join(IDENTITY_FILE);
    let sound = std::fs::read(&file).unwrap();
    for at in 0..sound.len() - 1 {
        let mut bytes = sound.clone();
        bytes[at] ^= 1;
        std::fs::write(&file, &bytes).unwrap();
        let error = DataDir::open(dir.path()).err().unwrap_or_else(|| panic!("byte {at}"));
        assert!(error.to_string().contains(IDENTITY_FILE), "{error}");
    }
}

#[test]
fn a_directory_with_files_and_without_an_identity_is_refused_and_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("log")).unwrap();
    let said = DataDir::open(dir.path()).err().unwrap().to_string();
    assert!(said.contains("has no IDENTITY but holds log"), "{said}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is made in it");
}

#[test]
fn a_directory_whose_first_opening_was_cut_off_is_a_new_one() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("lost+found")).unwrap();
    std::fs::write(dir.path().join("LOCK"), "").unwrap();
    std::fs::write(dir.path().join("IDENTITY.unfinished"), "{").unwrap();
    let first = DataDir::open(dir.path()).unwrap().identity();
    // The same holds once the identity is written, before there are engines or a cluster.
    let data = DataDir::open(dir.path()).unwrap();
    assert_eq!(data.identity(), first);
    data.refuse_lost_engines().unwrap();
}

#[test]
fn a_members_directory_without_files_of_its_engines_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let data = DataDir::open(dir.path()).unwrap();
    data.update(|identity| {
        identity.become_member(Membership { cluster_id: 1, node_id: 7 }, None);
    })
    .unwrap();
    let refused = || data.refuse_lost_engines().unwrap_err().to_string();
    std::fs::create_dir(dir.path().join("state")).unwrap();
    assert!(refused().contains("node 7, but state/CURRENT is gone"), "{}", refused());
    std::fs::write(dir.path().join("state/CURRENT"), "").unwrap();
    assert!(refused().contains("log/ is gone"), "{}", refused());
    std::fs::create_dir(dir.path().join("log")).unwrap();
    assert!(refused().contains("log/*.raftlog is gone"), "{}", refused());
    std::fs::write(dir.path().join("log/0000000000000001.raftlog"), "").unwrap();
    data.refuse_lost_engines().unwrap();
}

#[test]
#[should_panic(expected = "never changes its cluster")]
fn a_directory_never_changes_its_cluster() {
    let mut identity = Identity::new(1);
    identity.become_member(Membership { cluster_id: 1, node_id: 1 }, None);
    identity.become_member(Membership { cluster_id: 2, node_id: 1 }, None);
}
