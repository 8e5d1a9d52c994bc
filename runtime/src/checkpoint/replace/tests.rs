use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use super::*;

/// A directory of one test, removed at its end.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Dir {
        let dir = std::env::temp_dir().join(format!("retrograd-replace-{name}-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        Dir(dir)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn entries(&self) -> Vec<String> {
        let mut all: Vec<String> =
            fs::read_dir(&self.0).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        all.sort();
        all
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

#[track_caller]
fn put(path: &Path, bytes: &[u8]) {
    if let Err(refused) = replace(path, bytes) {
        panic!("{}", text(refused));
    }
}

fn text(refused: Refused) -> String {
    match refused {
        Refused::NotAFile(_, what) => what.to_string(),
        Refused::System(action, _, reason) => format!("{action}: {reason}"),
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o777
}

#[test]
fn a_file_keeps_its_mode_and_a_new_one_has_that_of_the_umask() {
    let dir = Dir::new("mode");
    let (file, other) = (dir.path("model"), dir.path("other"));
    put(&file, b"1");
    fs::write(&other, b"").unwrap();
    assert_eq!(mode(&file), mode(&other), "as any other new file");
    for bits in [0o600, 0o640, 0o664, 0o400, 0o777] {
        fs::set_permissions(&file, fs::Permissions::from_mode(bits)).unwrap();
        put(&file, b"2");
        assert_eq!(mode(&file), bits, "{bits:o}");
    }
}

#[test]
fn a_file_keeps_its_owner_and_group() {
    let dir = Dir::new("owner");
    let file = dir.path("model");
    put(&file, b"1");
    if std::os::unix::fs::chown(&file, Some(1234), Some(4321)).is_err() {
        eprintln!("skipped: only the superuser can give files away");
        return;
    }
    put(&file, b"2");
    let metadata = fs::metadata(&file).unwrap();
    assert_eq!((metadata.uid(), metadata.gid()), (1234, 4321));
}

#[test]
fn a_link_stays_and_what_it_leads_to_is_replaced() {
    let dir = Dir::new("link");
    fs::create_dir(dir.path("far")).unwrap();
    let (file, near, link) = (dir.path("far/model"), dir.path("far/near"), dir.path("link"));
    // A link to a link to a file that does not exist yet, relative to each one's own directory.
    symlink("model", &near).unwrap();
    symlink("far/near", &link).unwrap();
    for bytes in [b"1", b"2"] {
        put(&link, bytes);
        assert_eq!(fs::read(&file).unwrap(), bytes);
        assert!(fs::symlink_metadata(&file).unwrap().is_file());
    }
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink() && fs::symlink_metadata(&near).unwrap().is_symlink());
    assert_eq!(dir.entries(), ["far", "link"]);

    symlink(&file, dir.path("absolute")).unwrap();
    put(&dir.path("absolute"), b"3");
    assert_eq!(fs::read(&file).unwrap(), b"3");

    symlink("ring", dir.path("ring")).unwrap();
    let refused = replace(&dir.path("ring"), b"4").err().map(text).unwrap();
    assert_eq!(refused, "write: too many levels of symbolic links");
}

#[test]
fn what_is_no_regular_file_is_refused_and_stays() {
    let dir = Dir::new("special");
    let refused = |path: &Path| replace(path, b"bytes").err().map(text).expect("refused");
    assert_eq!(refused(&dir.0), "a directory");
    symlink(".", dir.path("here")).unwrap();
    assert_eq!(refused(&dir.path("here")), "a directory");
    symlink(&dir.0, dir.path("there")).unwrap();
    assert_eq!(refused(&dir.path("there")), "a directory");
    assert_eq!(refused(Path::new("/dev/null")), "a character device");
    symlink("/dev/null", dir.path("null")).unwrap();
    assert_eq!(refused(&dir.path("null")), "a character device");
    let _socket = std::os::unix::net::UnixListener::bind(dir.path("socket")).unwrap();
    assert_eq!(refused(&dir.path("socket")), "a socket");
    for nothing in ["", "/", "..", "model/"] {
        assert_eq!(refused(Path::new(nothing)), "write: the path does not name a file", "{nothing}");
    }
    assert_eq!(dir.entries(), ["here", "null", "socket", "there"]);
    let found = crate::checkpoint::Checkpoint::load("/dev/zero").unwrap_err().to_string();
    assert_eq!(found, "/dev/zero is a character device; a checkpoint is a regular file");
}

#[test]
fn what_killed_savers_left_is_removed_and_what_others_write_stays() {
    let dir = Dir::new("stale");
    let stale = dir.path(".retrograd-0123456789abcdef.tmp");
    fs::write(&stale, b"half").unwrap();
    // A mode of its own, as a killed saver may have given it already.
    fs::set_permissions(&stale, fs::Permissions::from_mode(0o400)).unwrap();
    let (live, lock) = create(&dir.0, false).map_err(|e| e.to_string()).unwrap();
    let strangers = [".retrograd-notes.tmp", ".retrograd-0123456789abcdeg.tmp", "retrograd.tmp"];
    for name in strangers {
        fs::write(dir.path(name), b"of someone else").unwrap();
    }
    put(&dir.path("model"), b"1");
    assert!(!stale.exists() && live.exists());
    drop(lock);
    put(&dir.path("model"), b"2");
    let mut expected = [&strangers[..], &["model"]].concat();
    expected.sort_unstable();
    assert_eq!(dir.entries(), expected);
}

#[test]
fn savers_of_one_file_do_not_disturb_each_other() {
    let dir = Dir::new("crowd");
    let file = dir.path("model");
    let whole = |n: u8| vec![n; 100_000];
    std::thread::scope(|s| {
        for n in 0..4 {
            let file = &file;
            s.spawn(move || (0..50).for_each(|_| put(file, &whole(n))));
        }
        for _ in 0..200 {
            if let Ok(bytes) = fs::read(&file) {
                assert_eq!(bytes, whole(bytes[0]));
            }
        }
    });
    assert_eq!(dir.entries(), ["model"]);
}

#[test]
fn the_longest_name_has_room_for_a_temporary_file() {
    let dir = Dir::new("long");
    put(&dir.path(&"m".repeat(255)), b"1");
    assert!(replace(&dir.path(&"m".repeat(256)), b"1").is_err());
    assert_eq!(dir.entries().len(), 1);
}
