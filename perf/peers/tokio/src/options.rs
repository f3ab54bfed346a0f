// SPDX-License-Identifier: MIT
//! The command line, and what can be derived from it: runtimes, names, the filter.

use crate::place;
use std::ffi::CString;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::runtime::{Builder, Runtime};

pub const USAGE: &str = "\
Usage: tokio-peer [--list] [--filter RE] [--json FILE] [--workers N] [--rounds N] [--quick]
                  [--flavor multi_thread|current_thread] [--pin] [--dir DIR]
       tokio-peer echo --port P [--workers N] [--cpu C]
       tokio-peer instructions N   spawns, runs and joins N tasks, one after the other
       tokio-peer --version | --help
";

/// The newest Tokio this was built against, as the build script found it.
pub const TOKIO_VERSION: &str = match option_env!("TOKIO_PEER_TOKIO_VERSION") {
    Some(version) => version,
    None => "unknown",
};

pub struct Options {
    pub list: bool,
    pub quick: bool,
    pub pin: bool,
    pub current_thread: bool,
    pub rounds: usize,
    pub workers: usize,
    pub json: Option<String>,
    pub dir: String,
    filter: Option<Regex>,
}

pub struct EchoOptions {
    pub port: u16,
    pub workers: usize,
    pub cpu: Option<usize>,
}

pub enum Parsed {
    Bench(Options),
    Echo(EchoOptions),
    IdleChild(Options),
    Instructions(Options, usize),
    Text(String),
}

/// A POSIX extended regular expression, from the C library.
struct Regex(Box<libc::regex_t>);

impl Regex {
    fn new(pattern: &str) -> Result<Regex, String> {
        let text = CString::new(pattern).map_err(|_| "--filter: contains a NUL".to_string())?;
        // SAFETY: regcomp() initialises the all-zero regex_t; the pattern is a C string.
        let mut compiled = Box::new(unsafe { std::mem::zeroed::<libc::regex_t>() });
        let flags = libc::REG_EXTENDED | libc::REG_NOSUB;
        let rc = unsafe { libc::regcomp(&mut *compiled, text.as_ptr(), flags) };
        if rc != 0 {
            return Err(format!("--filter: not a regular expression: {pattern}"));
        }
        Ok(Regex(compiled))
    }

    fn matches(&self, name: &str) -> bool {
        let text = CString::new(name).expect("scenario names hold no NUL");
        // SAFETY: the expression was compiled by new(); no match positions are asked for.
        unsafe { libc::regexec(&*self.0, text.as_ptr(), 0, std::ptr::null_mut(), 0) == 0 }
    }
}

impl Drop for Regex {
    fn drop(&mut self) {
        // SAFETY: compiled by new(), freed once.
        unsafe { libc::regfree(&mut *self.0) }
    }
}

fn mimalloc_is_loaded() -> bool {
    // SAFETY: dlsym() with a C string; the address is only compared with null.
    let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, b"mi_version\0".as_ptr().cast()) };
    !found.is_null()
}

impl Options {
    fn new() -> Options {
        Options {
            list: false,
            quick: false,
            pin: false,
            current_thread: false,
            rounds: 0,
            workers: place::allowed_cpus().len(),
            json: None,
            dir: std::env::temp_dir().to_string_lossy().into_owned(),
            filter: None,
        }
    }

    pub fn matches(&self, name: &str) -> bool {
        self.filter.as_ref().map_or(true, |filter| filter.matches(name))
    }

    /// tokio, tokio-mimalloc, and the same with -ct for the current-thread flavour.
    pub fn runtime_name(&self) -> String {
        let allocator = if mimalloc_is_loaded() { "-mimalloc" } else { "" };
        let flavor = if self.current_thread { "-ct" } else { "" };
        format!("tokio{allocator}{flavor}")
    }

    /// The runtime that the scenario runs on.
    pub fn runtime(&self) -> Runtime {
        if self.current_thread {
            return Builder::new_current_thread().enable_all().build().expect("runtime");
        }
        let mut builder = Builder::new_multi_thread();
        builder.worker_threads(self.workers).enable_all();
        if self.pin {
            // The worker threads are the first to start; later ones are the blocking pool's.
            let started = AtomicUsize::new(0);
            let cpus = place::allowed_cpus();
            let workers = self.workers;
            builder.on_thread_start(move || {
                // Relaxed: only distinct numbers are wanted.
                let index = started.fetch_add(1, Ordering::Relaxed);
                if index < workers {
                    place::bind_thread(&[cpus[index % cpus.len()]]);
                }
            });
        }
        builder.build().expect("runtime")
    }

    /// For scenarios that speak from outside: a current-thread runtime runs only while somebody
    /// blocks on it, so there is nobody to hear.
    pub fn need_worker_threads(&self) -> Result<(), String> {
        if self.current_thread {
            return Err("a current-thread runtime has no worker thread".to_string());
        }
        Ok(())
    }
}

fn number<T: std::str::FromStr>(name: &str, text: Option<&String>) -> Result<T, String> {
    let text = text.ok_or_else(|| format!("{name} wants a value\n{USAGE}"))?;
    text.parse().map_err(|_| format!("{name}: not a number in range: {text}"))
}

fn word(name: &str, text: Option<&String>) -> Result<String, String> {
    text.cloned().ok_or_else(|| format!("{name} wants a value\n{USAGE}"))
}

fn parse_echo(args: &[String]) -> Result<Parsed, String> {
    let mut echo = EchoOptions { port: 0, workers: 1, cpu: None };
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        match arg.as_str() {
            "--port" => echo.port = number(arg, rest.next())?,
            "--workers" => echo.workers = number(arg, rest.next())?,
            "--cpu" => echo.cpu = Some(number(arg, rest.next())?),
            _ => return Err(format!("echo: unknown option {arg}\n{USAGE}")),
        }
    }
    if echo.workers == 0 {
        return Err("echo: --workers: at least 1".to_string());
    }
    Ok(Parsed::Echo(echo))
}

pub fn parse(args: &[String]) -> Result<Parsed, String> {
    if args.first().map(String::as_str) == Some("echo") {
        return parse_echo(&args[1..]);
    }
    if args.first().map(String::as_str) == Some("instructions") {
        let mut options = Options::new();
        options.workers = 1;
        return Ok(Parsed::Instructions(options, number("instructions", args.get(1))?));
    }
    let mut options = Options::new();
    let mut is_child = false;
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        match arg.as_str() {
            "--list" => options.list = true,
            "--quick" => options.quick = true,
            "--pin" => options.pin = true,
            "--idle-child" => is_child = true,
            "--rounds" => options.rounds = number(arg, rest.next())?,
            "--workers" => options.workers = number(arg, rest.next())?,
            "--json" => options.json = Some(word(arg, rest.next())?),
            "--dir" => options.dir = word(arg, rest.next())?,
            "--filter" => options.filter = Some(Regex::new(&word(arg, rest.next())?)?),
            "--flavor" => match word(arg, rest.next())?.as_str() {
                "multi_thread" => options.current_thread = false,
                "current_thread" => options.current_thread = true,
                other => return Err(format!("--flavor: unknown: {other}\n{USAGE}")),
            },
            "--version" => return Ok(Parsed::Text(format!("tokio {TOKIO_VERSION}\n"))),
            "--help" => return Ok(Parsed::Text(USAGE.to_string())),
            _ => return Err(format!("unknown option {arg}\n{USAGE}")),
        }
    }
    if options.workers == 0 {
        return Err("--workers: at least 1".to_string());
    }
    if options.current_thread {
        options.workers = 1;
    }
    if options.rounds == 0 {
        options.rounds = if options.quick { 3 } else { 11 };
    }
    Ok(if is_child { Parsed::IdleChild(options) } else { Parsed::Bench(options) })
}
