//! Places of kernel fields. The compiler cannot emit field relocations, so the agent resolves each name from the running
//! kernel's BTF and patches these constants before the object is loaded; `u32::MAX` means that the field is absent.

macro_rules! offsets {
    ($($(#[$doc:meta])* $name:ident)*) => {
        $(
            $(#[$doc])*
            #[unsafe(no_mangle)]
            pub static $name: u32 = u32::MAX;
        )*
    };
}

offsets! {
    /// `task_struct.tgid`
    OFF_TASK_TGID
    /// `task_struct.flags`
    OFF_TASK_FLAGS
    /// `task_struct.mm`
    OFF_TASK_MM
    /// `task_struct.cred`
    OFF_TASK_CRED
    /// `cred.euid`
    OFF_CRED_EUID
    /// `task_struct.thread_info.status`: tells 32-bit calls on `x86_64`
    OFF_TASK_STATUS
    /// `task_struct.pid`
    OFF_TASK_PID
    /// `task_struct.__state`
    OFF_TASK_STATE
    /// `task_struct.on_cpu`
    OFF_TASK_ON_CPU
    /// `task_struct.thread_info.cpu`: where it runs or ran last
    OFF_TASK_CPU
    /// `task_struct.bpf_storage`: null for a thread that nobody keeps anything for
    OFF_TASK_STORAGE
    /// `task_struct.start_boottime`
    OFF_TASK_START
    /// `task_struct.comm`
    OFF_TASK_COMM
    /// `task_struct.files`
    OFF_TASK_FILES
    /// `task_struct.cgroups`
    OFF_TASK_CGROUPS
    /// `css_set.dfl_cgrp`
    OFF_CSS_DEFAULT
    /// `cgroup.kn`
    OFF_CGROUP_NODE
    /// `cgroup.level`
    OFF_CGROUP_LEVEL
    /// `cgroup.ancestors`: since 6.1
    OFF_CGROUP_ANCESTORS
    /// `kernfs_node.id`
    OFF_NODE_ID
    /// `task_struct.se.sum_exec_runtime`: nanoseconds it has run, by the kernel's account
    OFF_TASK_RUN_TIME
    /// `task_struct.sched_info.run_delay`: nanoseconds it has waited for a CPU
    OFF_TASK_RUN_DELAY
    /// `task_struct.sched_info.last_queued`: since when it waits for a CPU, on the scheduler's clock; 0 when it does not
    OFF_TASK_LAST_QUEUED
    /// `task_struct.sched_info.last_arrival`: when it last got a CPU, on that clock
    OFF_TASK_LAST_ARRIVAL
    /// `files_struct.fdt`
    OFF_FILES_FDT
    /// `fdtable.fd`
    OFF_FDT_FD
    /// `fdtable.max_fds`
    OFF_FDT_MAX
    /// `inode.i_mode`
    OFF_INODE_MODE
    /// `file.f_inode`
    OFF_FILE_INODE
    /// `inode.i_ino`
    OFF_INODE_INO
    /// `socket.sk`
    OFF_SOCKET_SK
    /// `sock.__sk_common.skc_family`
    OFF_SK_FAMILY
    /// `sock.sk_protocol`
    OFF_SK_PROTOCOL
    /// `sock.sk_type`
    OFF_SK_TYPE
    /// `sock.sk_rcvbuf`
    OFF_SK_RCVBUF
    /// `sock.sk_sndbuf`
    OFF_SK_SNDBUF
    /// `sock.sk_drops`
    OFF_SK_DROPS
    /// `sock.sk_receive_queue`
    OFF_SK_RECEIVE_QUEUE
    /// `sock.sk_drop_counters`: since 6.18, for UDP
    OFF_SK_DROP_COUNTERS
    /// `numa_drop_counters.drops0`, likewise
    OFF_DROPS_0
    /// `numa_drop_counters.drops1`, likewise
    OFF_DROPS_1
    /// `sock.sk_wmem_alloc`
    OFF_SK_WMEM_ALLOC
    /// `udp_sock.reader_queue`
    OFF_UDP_READER_QUEUE
    /// `sk_buff_head.qlen`
    OFF_SKBHEAD_QLEN
    /// `sock.__sk_common.skc_state`
    OFF_SK_STATE
    /// `sock.__sk_common.skc_num`
    OFF_SK_NUM
    /// `sock.__sk_common.skc_dport`
    OFF_SK_DPORT
    /// `sock.__sk_common.skc_rcv_saddr`
    OFF_SK_SADDR
    /// `sock.__sk_common.skc_daddr`
    OFF_SK_DADDR
    /// `sock.__sk_common.skc_v6_rcv_saddr`
    OFF_SK_SADDR6
    /// `sock.__sk_common.skc_v6_daddr`
    OFF_SK_DADDR6
    /// `tcp_sock.rcv_nxt`
    OFF_TCP_RCV_NXT
    /// `tcp_sock.copied_seq`
    OFF_TCP_COPIED_SEQ
    /// `tcp_sock.write_seq`
    OFF_TCP_WRITE_SEQ
    /// `tcp_sock.snd_una`
    OFF_TCP_SND_UNA
    /// `unix_sock.addr`
    OFF_UNIX_ADDR
    /// `unix_sock.peer`
    OFF_UNIX_PEER
    /// `unix_sock.inq_len`: since 6.17
    OFF_UNIX_INQ_LEN
    /// `unix_address.name`
    OFF_UNIX_ADDRESS_NAME
    /// `sk_buff_head.prev`
    OFF_SKBHEAD_PREV
    /// `sk_buff_head.next`
    OFF_SKBHEAD_NEXT
    /// `sk_buff.len`
    OFF_SKB_LEN
    /// `sk_buff.cb` + `unix_skb_parms.consumed`
    OFF_SKB_UNIX_CONSUMED
}

/// Bits of a thread id that choose its latency slot. Tests make it small to force two threads into one slot.
#[unsafe(no_mangle)]
pub static SLOT_MASK: u32 = 0xffff;

/// One call in so many is timed, in the mean; 1 times every call.
#[unsafe(no_mangle)]
pub static LATENCY_EVERY: u32 = 1;

/// Byte-microseconds of waiting that a sample of a reader stands for at the least.
#[unsafe(no_mangle)]
pub static SOCKET_PERIOD: u64 = u64::MAX;

/// Nanoseconds between two CPU samples.
#[unsafe(no_mangle)]
pub static CPU_PERIOD_NS: u64 = 0;

/// The value of a wide constant that the agent patched.
#[inline(always)]
pub fn of64(constant: &'static u64) -> u64 {
    // SAFETY: a valid reference; volatile only to keep the compiler from folding it.
    unsafe { core::ptr::read_volatile(constant) }
}

/// The value of a constant that the agent patched. A plain read would be folded to the value in the source.
#[inline(always)]
pub fn of(constant: &'static u32) -> usize {
    // SAFETY: a valid reference; volatile only to keep the compiler from folding it.
    (unsafe { core::ptr::read_volatile(constant) }) as usize
}

/// Whether the running kernel has the field.
#[inline(always)]
pub fn present(constant: &'static u32) -> bool {
    of(constant) != u32::MAX as usize
}
