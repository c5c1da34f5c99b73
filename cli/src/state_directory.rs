//! Directory for the state of the command line between runs: `rangedb` below the user's state
//! directory (`$XDG_STATE_HOME`, by default `~/.local/state`).

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Returns the path of a file in the directory. None if the user has no such directory.
pub fn file(name: &str) -> Option<PathBuf> {
    directory(|variable| std::env::var_os(variable)).map(|directory| directory.join(name))
}

fn directory(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    // A relative path would mean another place after every `cd`. The XDG specification says to
    // ignore it.
    let path = |name| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let in_home = || path("HOME").map(|home| home.join(Path::new(".local/state")));
    path("XDG_STATE_HOME").or_else(in_home).map(|state| state.join("rangedb"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_directory_is_the_users_choice_or_below_home() {
        let found = |variables: &[(&str, &str)]| {
            directory(|name| {
                let value = variables.iter().find(|(variable, _)| *variable == name);
                value.map(|(_, value)| OsString::from(value))
            })
        };
        let home = ("HOME", "/home/ada");
        assert_eq!(found(&[home]).unwrap(), Path::new("/home/ada/.local/state/rangedb"));
        assert_eq!(found(&[home, ("XDG_STATE_HOME", "/s")]).unwrap(), Path::new("/s/rangedb"));
        let relative = [home, ("XDG_STATE_HOME", "s")];
        assert_eq!(found(&relative).unwrap(), Path::new("/home/ada/.local/state/rangedb"));
        assert_eq!(found(&[]), None);
    }
}
