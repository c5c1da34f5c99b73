//! The node's memory: one limit, divided among all that may grow.
//!
//! | share | of the limit | bounded by |
//! |---|---|---|
//! | block cache | 1/4 | RocksDB, `storage.block_cache_bytes` |
//! | memtables | 1/8 | RocksDB, `storage.write_buffer_bytes` times 4 |
//! | requests | 1/16 | [`Budget::requests`] |
//! | tasks of requests | 1/16 | [`Budget::tasks`] |
//! | requests of nodes | 1/16 | [`Budget::of_nodes`] |
//! | answers | 1/8 | [`Budget::answers`] |
//! | store queues | 1/16 | the mailboxes, `limits.store_queue_bytes` of each store |
//! | everything else | the rest | raft logs in memory, snapshots, code, indexes, fragments |
//!
//! Settings in the file replace these shares, as long as all of them fit the limit. Without a
//! configured limit, the limit is that of the process's control group, or half of the machine's
//! memory.

use std::path::Path;

use crate::memory::Share;

/// Minimum of the limit. Beside its shares a node needs memory for code, threads and indexes.
pub(crate) const LIMIT_MIN: u64 = 128 << 20;

/// Limit of a machine that does not report its memory.
const LIMIT_UNKNOWN: u64 = 2 << 30;

/// Parts of the limit, as divisors.
const BLOCK_CACHE_PART: u64 = 4;
const MEMTABLES_PART: u64 = 8;
const REQUESTS_PART: u64 = 16;
const TASKS_PART: u64 = 16;
const NODE_REQUESTS_PART: u64 = 16;
const ANSWERS_PART: u64 = 8;
const STORE_QUEUES_PART: u64 = 16;

/// Maximum part of a share that one connection may take, as a divisor. Several connections that do
/// not read their answers are needed before other connections notice.
const CONNECTION_PART: u64 = 4;

/// Minimum that a connection may take: the largest message must fit.
const CONNECTION_MIN: u64 = 16 << 20;

/// Division of the limit. Each byte is counted in one part only.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Division {
    pub limit: u64,
    pub block_cache: u64,
    pub memtables: u64,
    pub requests: u64,
    pub tasks: u64,
    pub node_requests: u64,
    pub answers: u64,
    pub store_queues: u64,
}

impl Division {
    pub fn of(limit: u64) -> Division {
        Division {
            limit,
            block_cache: limit / BLOCK_CACHE_PART,
            memtables: limit / MEMTABLES_PART,
            requests: (limit / REQUESTS_PART).max(CONNECTION_MIN),
            tasks: limit / TASKS_PART,
            node_requests: (limit / NODE_REQUESTS_PART).max(CONNECTION_MIN),
            answers: (limit / ANSWERS_PART).max(CONNECTION_MIN),
            store_queues: limit / STORE_QUEUES_PART,
        }
    }

    pub fn sum(&self) -> u64 {
        let Division {
            limit: _,
            block_cache,
            memtables,
            requests,
            tasks,
            node_requests,
            answers,
            store_queues,
        } = *self;
        let shares =
            [block_cache, memtables, requests, tasks, node_requests, answers, store_queues];
        shares.into_iter().fold(0, u64::saturating_add)
    }
}

/// Shares from which requests in flight take memory.
#[derive(Clone)]
pub(crate) struct Budget {
    pub division: Division,
    /// Bytes of requests that arrived and are not answered.
    pub requests: Share,
    /// Cost of requests in flight beside their bytes.
    pub tasks: Share,
    /// Bytes of answers that the sockets have not taken.
    pub answers: Share,
}

impl Budget {
    pub fn new(division: Division) -> Budget {
        Budget {
            division,
            requests: Share::new(division.requests),
            tasks: Share::new(division.tasks),
            answers: Share::new(division.answers),
        }
    }

    /// Returns the budget of other nodes' connections. It is separate, so that clients' requests
    /// cannot keep nodes from their reports to each other. The tasks of nodes' requests have no
    /// bound here: the streams bound them, one from each node.
    pub fn of_nodes(&self) -> Budget {
        Budget {
            requests: Share::new(self.division.node_requests),
            tasks: Share::unbounded(),
            ..self.clone()
        }
    }

    /// Returns the parts that one connection may take.
    pub fn of_connection(&self) -> Budget {
        let part =
            |share: &Share| share.part((share.bytes_max() / CONNECTION_PART).max(CONNECTION_MIN));
        Budget {
            division: self.division,
            requests: part(&self.requests),
            tasks: part(&self.tasks),
            answers: part(&self.answers),
        }
    }
}

/// Returns the limit of this process if none is configured.
pub(crate) fn default_limit() -> u64 {
    let of_group = group_limit(Path::new("/proc/self/cgroup"), Path::new("/sys/fs/cgroup"));
    let of_machine = machine_bytes(Path::new("/proc/meminfo"));
    // A machine is shared with other programs and the page cache; a control group belongs to this
    // node.
    let limit = match (of_group, of_machine) {
        (Some(group), Some(machine)) if group < machine => group,
        (_, Some(machine)) => machine / 2,
        (Some(group), None) => group,
        (None, None) => LIMIT_UNKNOWN,
    };
    limit.max(LIMIT_MIN)
}

/// Returns the lowest limit of the control group and its ancestors, for version 2 or 1 of control
/// groups.
fn group_limit(own: &Path, mounted: &Path) -> Option<u64> {
    let groups = std::fs::read_to_string(own).ok()?;
    let mut least = None;
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let (root, file) = match controllers {
            "" => (mounted.to_owned(), "memory.max"),
            names if names.split(',').any(|name| name == "memory") => {
                (mounted.join("memory"), "memory.limit_in_bytes")
            }
            _ => continue,
        };
        // In a container the path is often that of the host, and the mounted directory is the group
        // itself.
        let path = root.join(path.trim_start_matches('/'));
        for group in path.ancestors().take_while(|group| group.starts_with(&root)) {
            let text = std::fs::read_to_string(group.join(file)).unwrap_or_default();
            // "max" or an unreadable file: no limit at this level.
            let limit = text.trim().parse::<u64>().ok();
            least = [least, limit].into_iter().flatten().min();
        }
    }
    least
}

fn machine_bytes(meminfo: &Path) -> Option<u64> {
    let text = std::fs::read_to_string(meminfo).ok()?;
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    total.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shares_fit_the_limit() {
        for limit in [LIMIT_MIN, 1 << 30, 64 << 30] {
            assert!(Division::of(limit).sum() <= limit, "{limit}");
        }
    }

    #[test]
    fn one_connection_leaves_most_to_others() {
        let budget = Budget::new(Division::of(4 << 30));
        let [one, other] = [(), ()].map(|()| budget.of_connection().answers);
        let _held = one.try_take(u64::MAX).unwrap();
        assert!(one.try_take(1).is_none());
        assert!(other.try_take(64 << 20).is_some());
    }

    #[test]
    fn the_least_limit_of_the_groups_above_holds() {
        let dir = tempfile::tempdir().unwrap();
        let file = |path: &str, text: &str| {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        file("own", "0::/a/b\n");
        file("fs/a/b/memory.max", "max\n");
        file("fs/a/memory.max", "1073741824\n");
        let limit = |own: &str| group_limit(&dir.path().join(own), &dir.path().join("fs"));
        assert_eq!(limit("own"), Some(1 << 30));
        file("fs/a/b/memory.max", "268435456\n");
        assert_eq!(limit("own"), Some(256 << 20));
        file("v1", "5:cpu,cpuacct:/x\n4:memory:/docker/x\n");
        file("fs/memory/memory.limit_in_bytes", "536870912\n");
        assert_eq!(limit("v1"), Some(512 << 20));
        assert_eq!(limit("nothing"), None);
        file("free", "0::/c\n");
        assert_eq!(limit("free"), None);
    }

    #[test]
    fn the_machine_says_how_much_it_has() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("meminfo");
        std::fs::write(&path, "MemTotal:       16315676 kB\nMemFree: 1 kB\n").unwrap();
        assert_eq!(machine_bytes(&path), Some(16_315_676 * 1024));
        std::fs::write(&path, "nonsense").unwrap();
        assert_eq!(machine_bytes(&path), None);
    }
}
