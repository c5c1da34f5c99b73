//! Tests of the routing cache: ranges that it remembers, and ranges that it forgets.

use rangedb_proto::v1::{Epoch, LocateReply, NodeDescriptor, Replica};

use super::*;

fn range(range_id: u64, start: &str, end: &str, version: u64, nodes: &[u64]) -> RangeDescriptor {
    let replica = |&node_id: &u64| Replica { replica_id: node_id, node_id, role: 0 };
    RangeDescriptor {
        range_id,
        start_key: start.to_owned().into(),
        end_key: end.to_owned().into(),
        epoch: Some(Epoch { version, conf_ver: 1 }),
        replicas: nodes.iter().map(replica).collect(),
        next_replica_id: 100,
    }
}

fn router_with(ranges: Vec<(RangeDescriptor, u64)>) -> Router {
    let router = Router::new(AddressKind::Client);
    learn(&router, b"", ranges);
    router
}

fn learn(router: &Router, key: &[u8], ranges: Vec<(RangeDescriptor, u64)>) {
    let location = |(descriptor, leader_node_id)| RangeLocation {
        descriptor: Some(descriptor),
        leader_node_id,
    };
    let node = |node_id| NodeDescriptor {
        node_id,
        client_address: format!("n{node_id}:1"),
        ..Default::default()
    };
    let ranges = ranges.into_iter().map(location).collect();
    router.learn(RouteTarget::Key(key), LocateReply { ranges, nodes: (1..=4).map(node).collect() });
}

fn id_at(router: &Router, target: RouteTarget<'_>) -> Option<u64> {
    router.route(target, &BTreeSet::new()).map(|route| route.descriptor.range_id)
}

fn nodes_in_order(router: &Router, key: &[u8]) -> Vec<u64> {
    let mut tried = BTreeSet::new();
    let mut order = Vec::new();
    while let Some(node) = router.route(RouteTarget::Key(key), &tried).unwrap().node {
        order.push(node.node_id);
        tried.insert(node.address);
    }
    order
}

#[test]
fn finds_the_range_of_a_key_and_the_range_below_an_end() {
    let r = router_with(vec![(range(1, "", "m", 1, &[1]), 1), (range(2, "p", "", 1, &[1]), 1)]);
    assert_eq!(id_at(&r, RouteTarget::Key(b"a")), Some(1));
    assert_eq!(id_at(&r, RouteTarget::Key(b"m")), None, "a hole between two cached ranges");
    assert_eq!(id_at(&r, RouteTarget::Key(b"p")), Some(2));
    assert_eq!(id_at(&r, RouteTarget::Below(b"m")), Some(1));
    assert_eq!(id_at(&r, RouteTarget::Below(b"p")), None);
    assert_eq!(id_at(&r, RouteTarget::Below(b"")), Some(2));
}

#[test]
fn a_split_replaces_the_range_that_it_came_from() {
    let r = router_with(vec![(range(1, "", "", 1, &[1, 2]), 2)]);
    r.learn_descriptors(vec![range(1, "", "m", 2, &[1, 2]), range(5, "m", "", 2, &[1, 2])]);
    assert_eq!(id_at(&r, RouteTarget::Key(b"a")), Some(1));
    assert_eq!(id_at(&r, RouteTarget::Key(b"z")), Some(5));
    assert_eq!(r.leader(b"a").unwrap().node_id, 2, "the split did not move the leader");
    assert!(r.leader(b"z").is_none());
}

#[test]
fn an_older_range_never_replaces_a_newer_one() {
    let r = router_with(vec![(range(1, "", "m", 2, &[1]), 1), (range(5, "m", "", 2, &[1]), 1)]);
    r.learn_descriptors(vec![range(1, "", "", 1, &[1])]);
    assert_eq!(id_at(&r, RouteTarget::Key(b"z")), Some(5));
}

#[test]
fn a_doubtful_range_is_replaced_by_whatever_the_directory_says() {
    let r = router_with(vec![(range(1, "", "m", 7, &[1]), 1), (range(5, "m", "", 7, &[1]), 1)]);
    let used = r.route(RouteTarget::Key(b"a"), &BTreeSet::new()).unwrap().descriptor;
    r.doubt(&used);
    assert!(r.route(RouteTarget::Key(b"a"), &BTreeSet::new()).unwrap().doubtful);
    learn(&r, b"a", vec![(range(9, "", "", 1, &[3]), 3)]);
    assert_eq!(id_at(&r, RouteTarget::Key(b"a")), Some(9));
    assert_eq!(id_at(&r, RouteTarget::Key(b"z")), Some(9));
}

#[test]
fn the_leader_is_tried_first_and_the_node_that_failed_last() {
    let r = router_with(vec![(range(1, "", "", 1, &[1, 2, 3]), 2)]);
    assert_eq!(nodes_in_order(&r, b"k"), [2, 1, 3]);
    let used = r.route(RouteTarget::Key(b"k"), &BTreeSet::new()).unwrap().descriptor;
    r.turned_away(&used, 2);
    assert_eq!(nodes_in_order(&r, b"k"), [1, 3, 2]);
    // The directory still names the dead leader.
    r.doubt(&used);
    learn(&r, b"k", vec![(range(1, "", "", 1, &[1, 2, 3]), 2)]);
    assert_eq!(nodes_in_order(&r, b"k"), [1, 3, 2]);
    // A follower names it too, until it learns of the failure.
    r.hint(&used, 2, "");
    assert_eq!(nodes_in_order(&r, b"k"), [1, 3, 2]);
    r.hint(&used, 3, "");
    assert_eq!(nodes_in_order(&r, b"k"), [3, 1, 2]);
    r.leads(&used, 2);
    assert_eq!(nodes_in_order(&r, b"k"), [2, 1, 3]);
}

#[test]
fn a_hint_teaches_the_address_of_an_unknown_node() {
    let r = router_with(vec![(range(1, "", "", 1, &[1, 9]), 1)]);
    let used = r.route(RouteTarget::Key(b"k"), &BTreeSet::new()).unwrap().descriptor;
    r.hint(&used, 9, "n9:1");
    let node = r.route(RouteTarget::Key(b"k"), &BTreeSet::new()).unwrap().node.unwrap();
    assert_eq!((node.node_id, &*node.address), (9, "n9:1"));
}

#[test]
fn news_about_a_range_that_changed_meanwhile_is_ignored() {
    let r = router_with(vec![(range(1, "", "", 1, &[1, 2]), 1)]);
    let used = r.route(RouteTarget::Key(b"k"), &BTreeSet::new()).unwrap().descriptor;
    r.learn_descriptors(vec![range(1, "", "", 2, &[1, 2])]);
    r.turned_away(&used, 1);
    assert_eq!(r.leader(b"k").unwrap().node_id, 1);
}
