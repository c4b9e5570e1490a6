//! Which kernel fields the probes read, and where they lie on the running kernel.

use super::attach::Family;
use super::btf::Btf;

/// A constant of the kernel side and the field whose offset it holds.
struct Field {
    symbol: &'static str,
    path: &'static str,
    /// The family that cannot work without it; `None` when it does without.
    needed_by: Option<Family>,
}

const fn field(symbol: &'static str, path: &'static str, needed_by: Option<Family>) -> Field {
    Field { symbol, path, needed_by }
}

const SOCKETS: Option<Family> = Some(Family::Sockets);

const SCHED: Option<Family> = Some(Family::Sched);

const FIELDS: &[Field] = &[
    field("OFF_TASK_TGID", "task_struct.tgid", SOCKETS),
    field("OFF_TASK_FLAGS", "task_struct.flags", Some(Family::Cpu)),
    field("OFF_TASK_CRED", "task_struct.cred", None),
    field("OFF_CRED_EUID", "cred.euid", None),
    field("OFF_TASK_MM", "task_struct.mm", Some(Family::Cpu)),
    field("OFF_TASK_STATUS", "task_struct.thread_info.status", None),
    field("OFF_TASK_PID", "task_struct.pid", SCHED),
    field("OFF_TASK_STATE", "task_struct.__state", SCHED),
    field("OFF_TASK_ON_CPU", "task_struct.on_cpu", SCHED),
    field("OFF_TASK_CPU", "task_struct.thread_info.cpu", SCHED),
    field("OFF_TASK_STORAGE", "task_struct.bpf_storage", SCHED),
    field("OFF_TASK_START", "task_struct.start_boottime", SCHED),
    field("OFF_TASK_COMM", "task_struct.comm", SCHED),
    field("OFF_TASK_FILES", "task_struct.files", SCHED),
    field("OFF_TASK_CGROUPS", "task_struct.cgroups", SCHED),
    field("OFF_CSS_DEFAULT", "css_set.dfl_cgrp", SCHED),
    field("OFF_CGROUP_NODE", "cgroup.kn", SCHED),
    field("OFF_CGROUP_LEVEL", "cgroup.level", None),
    field("OFF_CGROUP_ANCESTORS", "cgroup.ancestors", None),
    field("OFF_NODE_ID", "kernfs_node.id", SCHED),
    field("OFF_TASK_RUN_TIME", "task_struct.se.sum_exec_runtime", None),
    field("OFF_TASK_RUN_DELAY", "task_struct.sched_info.run_delay", SCHED),
    field("OFF_TASK_LAST_QUEUED", "task_struct.sched_info.last_queued", SCHED),
    field("OFF_TASK_LAST_ARRIVAL", "task_struct.sched_info.last_arrival", SCHED),
    field("OFF_FILES_FDT", "files_struct.fdt", SCHED),
    field("OFF_FDT_FD", "fdtable.fd", SCHED),
    field("OFF_FDT_MAX", "fdtable.max_fds", SCHED),
    field("OFF_INODE_MODE", "inode.i_mode", SCHED),
    field("OFF_FILE_INODE", "file.f_inode", SOCKETS),
    field("OFF_INODE_INO", "inode.i_ino", SOCKETS),
    field("OFF_SOCKET_SK", "socket.sk", SOCKETS),
    field("OFF_SK_FAMILY", "sock.__sk_common.skc_family", SOCKETS),
    field("OFF_SK_PROTOCOL", "sock.sk_protocol", SOCKETS),
    field("OFF_SK_TYPE", "sock.sk_type", SOCKETS),
    field("OFF_SK_RCVBUF", "sock.sk_rcvbuf", SOCKETS),
    field("OFF_SK_SNDBUF", "sock.sk_sndbuf", SOCKETS),
    field("OFF_SK_DROPS", "sock.sk_drops", SOCKETS),
    field("OFF_SK_RECEIVE_QUEUE", "sock.sk_receive_queue", SOCKETS),
    field("OFF_SK_DROP_COUNTERS", "sock.sk_drop_counters", None),
    field("OFF_DROPS_0", "numa_drop_counters.drops0", None),
    field("OFF_DROPS_1", "numa_drop_counters.drops1", None),
    field("OFF_SK_WMEM_ALLOC", "sock.sk_wmem_alloc", SOCKETS),
    field("OFF_UDP_READER_QUEUE", "udp_sock.reader_queue", SOCKETS),
    field("OFF_SKBHEAD_QLEN", "sk_buff_head.qlen", SOCKETS),
    field("OFF_SK_STATE", "sock.__sk_common.skc_state", SOCKETS),
    field("OFF_SK_NUM", "sock.__sk_common.skc_num", SOCKETS),
    field("OFF_SK_DPORT", "sock.__sk_common.skc_dport", SOCKETS),
    field("OFF_SK_SADDR", "sock.__sk_common.skc_rcv_saddr", SOCKETS),
    field("OFF_SK_DADDR", "sock.__sk_common.skc_daddr", SOCKETS),
    field("OFF_SK_SADDR6", "sock.__sk_common.skc_v6_rcv_saddr", None),
    field("OFF_SK_DADDR6", "sock.__sk_common.skc_v6_daddr", None),
    field("OFF_TCP_RCV_NXT", "tcp_sock.rcv_nxt", SOCKETS),
    field("OFF_TCP_COPIED_SEQ", "tcp_sock.copied_seq", SOCKETS),
    field("OFF_TCP_WRITE_SEQ", "tcp_sock.write_seq", SOCKETS),
    field("OFF_TCP_SND_UNA", "tcp_sock.snd_una", SOCKETS),
    field("OFF_UNIX_ADDR", "unix_sock.addr", SOCKETS),
    field("OFF_UNIX_PEER", "unix_sock.peer", SOCKETS),
    field("OFF_UNIX_INQ_LEN", "unix_sock.inq_len", None),
    field("OFF_UNIX_ADDRESS_NAME", "unix_address.name", SOCKETS),
    field("OFF_SKBHEAD_PREV", "sk_buff_head.prev", SOCKETS),
    field("OFF_SKBHEAD_NEXT", "sk_buff_head.next", SOCKETS),
    field("OFF_SKB_LEN", "sk_buff.len", SOCKETS),
    field("OFF_SKB_UNIX_CONSUMED", "sk_buff.cb", SOCKETS),
];

/// Where the fields lie on one kernel.
#[derive(Debug)]
pub struct Offsets {
    values: Vec<(&'static str, u32)>,
    missing: Vec<(&'static str, Family)>,
}

impl Offsets {
    /// Looks every field up.
    pub fn resolve(btf: &Btf) -> Self {
        let mut offsets = Self { values: Vec::new(), missing: Vec::new() };
        for Field { symbol, path, needed_by } in FIELDS {
            let mut offset = btf.offset_of(path);
            if *symbol == "OFF_SKB_UNIX_CONSUMED" {
                // The control block is bytes to BTF; a Unix socket lays its own struct over it.
                offset = offset.zip(btf.offset_of("unix_skb_parms.consumed")).map(|(cb, inner)| cb + inner);
            }
            if let (None, Some(family)) = (offset, needed_by) {
                offsets.missing.push((path, *family));
            }
            offsets.values.push((symbol, offset.unwrap_or(u32::MAX)));
        }
        offsets
    }

    /// Constants and their values.
    pub fn values(&self) -> &[(&'static str, u32)] {
        &self.values
    }

    /// The first field that `family` needs and this kernel lacks.
    pub fn missing_for(&self, family: Family) -> Option<&'static str> {
        self.missing.iter().find(|(_, f)| *f == family).map(|(path, _)| *path)
    }
}
