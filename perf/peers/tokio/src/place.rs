// SPDX-License-Identifier: MIT
//! Which CPUs this process may use, and binding the calling thread to some of them.

use std::mem::{size_of, zeroed};

/// In ascending order; never empty.
pub fn allowed_cpus() -> Vec<usize> {
    // SAFETY: an all-zero cpu_set_t is the empty set; the kernel writes at most its size.
    let mut set: libc::cpu_set_t = unsafe { zeroed() };
    let rc = unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set) };
    assert_eq!(rc, 0, "sched_getaffinity");
    let limit = libc::CPU_SETSIZE as usize;
    // SAFETY: the index stays below CPU_SETSIZE.
    (0..limit).filter(|&cpu| unsafe { libc::CPU_ISSET(cpu, &set) }).collect()
}

/// Binds the calling thread; threads it starts later inherit the set.
pub fn bind_thread(cpus: &[usize]) {
    // SAFETY: as above; every CPU comes from allowed_cpus() or is checked here.
    let mut set: libc::cpu_set_t = unsafe { zeroed() };
    for &cpu in cpus {
        assert!(cpu < libc::CPU_SETSIZE as usize, "CPU {cpu} is out of range");
        unsafe { libc::CPU_SET(cpu, &mut set) };
    }
    let rc = unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set) };
    if rc != 0 {
        let error = std::io::Error::last_os_error();
        eprintln!("tokio-peer: cannot bind to CPU {cpus:?}: {error}");
        std::process::exit(2);
    }
}
