"""Which system calls a worker is refused, by number, for each processor that the filter knows.

What is not named here is allowed: a worker runs numpy, OpenCV, CUDA and whatever else a bundle was
proven with, and each kernel version brings libraries that use a few calls more. What is named is
what reaches beyond the process: other processes, programs, networks, names and owners of files,
memory that no limit counts, and the kernel itself.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

Machine = Literal["x86_64", "aarch64"]

_NONE: Final = -1  # the processor has no such call


class Numbers(NamedTuple):
    """One system call's number on each processor."""

    x86_64: int
    aarch64: int


def _same(number: int) -> Numbers:
    return Numbers(number, number)


# From here on both processors number alike; what is newer than the newest is unknown to us.
NEWEST: Final = 462

# Decided first: what a serving worker calls all the time. A kernel from 5.11 on remembers that a
# number is always allowed and does not run the filter for it at all.
FREQUENT: Final = (
    Numbers(47, 212),  # recvmsg
    Numbers(46, 211),  # sendmsg
    Numbers(232, _NONE),  # epoll_wait
    Numbers(281, 22),  # epoll_pwait
    Numbers(202, 98),  # futex
    Numbers(45, 207),  # recvfrom
    Numbers(44, 206),  # sendto
    Numbers(0, 63),  # read
    Numbers(1, 64),  # write
    Numbers(11, 215),  # munmap
    Numbers(28, 233),  # madvise
    Numbers(24, 124),  # sched_yield
    Numbers(228, 113),  # clock_gettime
    Numbers(7, 73),  # poll, ppoll
)

REFUSED: Final[dict[str, Numbers]] = {
    # Networks, and sockets of other processes. The lane is bound before the filter is applied.
    "connect": Numbers(42, 203),
    # Programs and processes; threads are `clone` with a flag, see ARGUMENTS in filter.py.
    "fork": Numbers(57, _NONE),
    "vfork": Numbers(58, _NONE),
    "execve": Numbers(59, 221),
    "execveat": Numbers(322, 281),
    "unshare": Numbers(272, 97),
    "setns": Numbers(308, 268),
    # Other processes.
    "ptrace": Numbers(101, 117),
    "process_vm_readv": Numbers(310, 270),
    "process_vm_writev": Numbers(311, 271),
    "process_madvise": _same(440),
    "process_mrelease": _same(448),
    "pidfd_open": _same(434),
    "pidfd_getfd": _same(438),
    "pidfd_send_signal": _same(424),
    "kcmp": Numbers(312, 272),
    "tkill": Numbers(200, 130),
    "setpriority": Numbers(141, 140),
    "ioprio_set": Numbers(251, 30),
    "move_pages": Numbers(279, 239),
    "migrate_pages": Numbers(256, 238),
    # Owner, mode, times and attributes of files, which Landlock does not guard; and truncation by
    # name, which it guards from 6.2 on.
    "truncate": Numbers(76, 45),
    "chmod": Numbers(90, _NONE),
    "fchmod": Numbers(91, 52),
    "fchmodat": Numbers(268, 53),
    "fchmodat2": _same(452),
    "chown": Numbers(92, _NONE),
    "fchown": Numbers(93, 55),
    "lchown": Numbers(94, _NONE),
    "fchownat": Numbers(260, 54),
    "utime": Numbers(132, _NONE),
    "utimes": Numbers(235, _NONE),
    "futimesat": Numbers(261, _NONE),
    "utimensat": Numbers(280, 88),
    "setxattr": Numbers(188, 5),
    "lsetxattr": Numbers(189, 6),
    "fsetxattr": Numbers(190, 7),
    "removexattr": Numbers(197, 14),
    "lremovexattr": Numbers(198, 15),
    "fremovexattr": Numbers(199, 16),
    "name_to_handle_at": Numbers(303, 264),
    "open_by_handle_at": Numbers(304, 265),
    "inotify_init": Numbers(253, _NONE),
    "inotify_init1": Numbers(294, 26),
    "inotify_add_watch": Numbers(254, 27),
    "fanotify_init": Numbers(300, 262),
    "fanotify_mark": Numbers(301, 263),
    # Memory and names that outlive the process.
    "shmget": Numbers(29, 194),
    "shmat": Numbers(30, 196),
    "shmctl": Numbers(31, 195),
    "semget": Numbers(64, 190),
    "semop": Numbers(65, 193),
    "semctl": Numbers(66, 191),
    "semtimedop": Numbers(220, 192),
    "msgget": Numbers(68, 186),
    "msgsnd": Numbers(69, 189),
    "msgrcv": Numbers(70, 188),
    "msgctl": Numbers(71, 187),
    "mq_open": Numbers(240, 180),
    "mq_unlink": Numbers(241, 181),
    "memfd_secret": _same(447),
    "add_key": Numbers(248, 217),
    "request_key": Numbers(249, 218),
    "keyctl": Numbers(250, 219),
    # File systems.
    "mount": Numbers(165, 40),
    "umount2": Numbers(166, 39),
    "pivot_root": Numbers(155, 41),
    "chroot": Numbers(161, 51),
    "open_tree": _same(428),
    "move_mount": _same(429),
    "fsopen": _same(430),
    "fsconfig": _same(431),
    "fsmount": _same(432),
    "fspick": _same(433),
    "mount_setattr": _same(442),
    "swapon": Numbers(167, 224),
    "swapoff": Numbers(168, 225),
    "quotactl": Numbers(179, 60),
    "quotactl_fd": _same(443),
    # The kernel: its modules, its clock, its programs, and what was often a way into it.
    "init_module": Numbers(175, 105),
    "finit_module": Numbers(313, 273),
    "delete_module": Numbers(176, 106),
    "kexec_load": Numbers(246, 104),
    "kexec_file_load": Numbers(320, 294),
    "reboot": Numbers(169, 142),
    "acct": Numbers(163, 89),
    "syslog": Numbers(103, 116),
    "vhangup": Numbers(153, 58),
    "settimeofday": Numbers(164, 170),
    "clock_settime": Numbers(227, 112),
    "adjtimex": Numbers(159, 171),
    "clock_adjtime": Numbers(305, 266),
    "sethostname": Numbers(170, 161),
    "setdomainname": Numbers(171, 162),
    "iopl": Numbers(172, _NONE),
    "ioperm": Numbers(173, _NONE),
    "modify_ldt": Numbers(154, _NONE),
    "personality": Numbers(135, 92),
    "bpf": Numbers(321, 280),
    "perf_event_open": Numbers(298, 241),
    "userfaultfd": Numbers(323, 282),
    "io_uring_setup": _same(425),
    "io_uring_enter": _same(426),
    "io_uring_register": _same(427),
}

# CUDA does not start without these: it shares memory with its driver, and listens on a local socket
# for processes that it might pass memory to. Nothing else in a worker needs them. Which `socket`
# then is allowed is judged by its arguments, and so no other kind can be bound.
REFUSED_WITHOUT_GPU: Final[dict[str, Numbers]] = {
    "memfd_create": Numbers(319, 279),
    "socket": Numbers(41, 198),
    "bind": Numbers(49, 200),
}

# Answered "no such call", upon which every caller falls back to an older one that can be judged:
# these take their flags in memory, where no filter can look.
UNKNOWN: Final[dict[str, Numbers]] = {"clone3": _same(435), "openat2": _same(437)}

# Judged by their arguments, in filter.py.
CLONE: Final = Numbers(56, 220)
MMAP: Final = Numbers(9, 222)
OPEN: Final = Numbers(2, _NONE)
OPENAT: Final = Numbers(257, 56)
FCNTL: Final = Numbers(72, 25)
IOCTL: Final = Numbers(16, 29)
PRCTL: Final = Numbers(157, 167)
SOCKET: Final = REFUSED_WITHOUT_GPU["socket"]
SOCKETPAIR: Final = Numbers(53, 199)
KILL: Final = Numbers(62, 129)
TGKILL: Final = Numbers(234, 131)
RT_SIGQUEUEINFO: Final = Numbers(129, 138)
RT_TGSIGQUEUEINFO: Final = Numbers(297, 240)
PRLIMIT64: Final = Numbers(302, 261)
SCHED_SETAFFINITY: Final = Numbers(203, 122)
SCHED_SETSCHEDULER: Final = Numbers(144, 119)
SCHED_SETPARAM: Final = Numbers(142, 118)
SCHED_SETATTR: Final = Numbers(314, 274)

SECCOMP: Final = Numbers(317, 277)
AUDIT_ARCH: Final[dict[Machine, int]] = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
