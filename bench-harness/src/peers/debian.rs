//! Servers from Debian's packages: the installed one, or packages that are got and unpacked without installing anything and
//! without being root.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::Setup;
use crate::measure::Problem;

/// Where a package's files are: `/` if `probe`, a path below it, is there; else a folder of what was unpacked.
pub fn root(setup: &Setup, package: &str, probe: &str) -> Result<PathBuf, Problem> {
    if Path::new("/").join(probe).exists() {
        return Ok(PathBuf::from("/"));
    }
    let folder = setup.cache.join(package);
    let (root, complete) = (folder.join("root"), folder.join("complete"));
    if complete.exists() {
        return Ok(root.canonicalize()?);
    }
    eprintln!("getting {package} from Debian's packages");
    if folder.exists() {
        std::fs::remove_dir_all(&folder)?;
    }
    std::fs::create_dir_all(&root)?;
    let missing = |why: &str| format!("{package} is not installed, and {why}");
    let simulated =
        run(Command::new("apt-get").args(["--simulate", "--no-install-recommends", "install", package]))
            .map_err(|problem| missing(&format!("its packages cannot be got: {problem}")))?;
    let packages = installed_by(&simulated);
    if packages.is_empty() {
        return Err(missing("apt-get does not say what it consists of").into());
    }
    run(Command::new("apt-get").arg("download").args(&packages).current_dir(&folder))
        .map_err(|problem| missing(&format!("its packages cannot be got: {problem}")))?;
    for file in std::fs::read_dir(&folder)?.flatten() {
        if file.path().extension().is_some_and(|extension| extension == "deb") {
            run(Command::new("dpkg").arg("--extract").arg(file.path()).arg(&root))?;
            std::fs::remove_file(file.path())?;
        }
    }
    std::fs::write(complete, packages.join("\n"))?;
    Ok(root.canonicalize()?)
}

/// The packages that `apt-get --simulate install` says it would install.
fn installed_by(simulated: &str) -> Vec<String> {
    let name = |line: &str| Some(line.strip_prefix("Inst ")?.split(' ').next()?.to_owned());
    simulated.lines().filter_map(name).collect()
}

/// What a command prints; if it fails, why.
fn run(command: &mut Command) -> Result<String, Problem> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|error| format!("{program}: {error}"))?;
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{program}: {}", why.trim().lines().last().unwrap_or("it failed")).into());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The one entry of a folder whose name begins like this.
pub fn beginning(folder: &Path, name: &str) -> Result<PathBuf, Problem> {
    let entries = std::fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let found = entries.flatten().find(|entry| entry.file_name().to_string_lossy().starts_with(name));
    found.map(|entry| entry.path()).ok_or_else(|| format!("{} has no {name}", folder.display()).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_would_be_installed_is_got() {
        let simulated = "Reading package lists...\nInst erlang-base (1:25 Debian:12 [amd64])\nInst socat (1 x)\nConf socat (1)\n";
        assert_eq!(installed_by(simulated), ["erlang-base", "socat"]);
    }

    #[test]
    fn a_command_that_fails_says_why() {
        let why = run(Command::new("sh").args(["-c", "echo first >&2; echo no such package >&2; exit 1"]));
        assert_eq!(why.unwrap_err().to_string(), "sh: no such package");
    }
}
