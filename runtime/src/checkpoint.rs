//! What a run must keep to go on later: named tensors and notes, in one file.
//!
//! The format is [safetensors](https://github.com/huggingface/safetensors), so that the weights can be read
//! elsewhere. Its header carries our notes, the version of the format, and a checksum over all tensors and notes:
//! what is loaded is bit for bit what was saved, or an error.
//!
//! Saving replaces the file in one step (`replace`): at every moment, also after a crash, the path holds one whole
//! checkpoint, the old one or the new one.
//!
//! Loading gives all that is in the file. The caller takes out what it needs with its shape, and ends with
//! [`finish`](Checkpoint::finish), which refuses what is left over: a checkpoint of another program. The checksum tells
//! what was damaged by accident; anyone can compute it, so whoever takes a number out says which values it may have
//! ([`take_note_if`](Checkpoint::take_note_if)).

mod replace;

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use ndarray::ArrayD;
use safetensors::tensor::{SafeTensors, TensorView};

use self::replace::Refused;
use crate::error::CheckpointError;
use crate::init::{FNV_START, fnv1a};
use crate::tensor::{Item, Tensor};

/// The format that this version writes and reads.
const FORMAT: &str = "retrograd 1";
const FAMILY: &str = "retrograd ";
/// Keys of the header: two of the format, the others are notes behind a prefix.
const FORMAT_KEY: &str = "format";
const CHECKSUM_KEY: &str = "checksum";
const NOTE: &str = "note.";

/// Named tensors and notes.
///
/// ```
/// use ndarray::ArrayD;
/// use retrograd_runtime::checkpoint::Checkpoint;
/// # let dir = std::env::temp_dir().join(format!("retrograd-doc-{}", std::process::id()));
/// # std::fs::create_dir_all(&dir)?;
/// # let path = dir.join("model.safetensors");
/// let mut saved = Checkpoint::new();
/// saved.insert("gates.w", ArrayD::<f32>::ones(vec![2, 3]));
/// saved.note("steps", 1200);
/// saved.save(&path)?;
///
/// let mut loaded = Checkpoint::load(&path)?;
/// let steps: u64 = loaded.take_note("steps")?;
/// let w: ArrayD<f32> = loaded.take("gates.w", &[2, 3])?;
/// loaded.finish()?;
/// # assert_eq!((steps, w.sum()), (1200, 6.0));
/// # std::fs::remove_dir_all(&dir)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Checkpoint {
    /// The file that it is from, for texts of errors.
    path: PathBuf,
    tensors: BTreeMap<String, Tensor>,
    notes: BTreeMap<String, String>,
}

impl Checkpoint {
    /// Nothing yet.
    pub fn new() -> Checkpoint {
        Checkpoint::default()
    }

    /// Adds a tensor; one of the same name is replaced.
    pub fn insert<A: Item>(&mut self, name: impl Into<String>, array: ArrayD<A>) {
        self.insert_tensor(name, A::wrap(array));
    }

    /// As [`insert`](Checkpoint::insert), of whichever element type.
    pub fn insert_tensor(&mut self, name: impl Into<String>, tensor: Tensor) {
        self.tensors.insert(name.into(), tensor);
    }

    /// Adds a note: anything small that prints and parses back, such as the number of steps.
    pub fn note(&mut self, key: impl Into<String>, value: impl ToString) {
        self.notes.insert(key.into(), value.to_string());
    }

    /// Names of the tensors, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// A tensor, if there is one of this name.
    pub fn tensor(&self, name: &str) -> Option<&Tensor> {
        self.tensors.get(name)
    }

    /// The text of a note, if there is one.
    pub fn get_note(&self, key: &str) -> Option<&str> {
        self.notes.get(key).map(String::as_str)
    }

    /// Takes a tensor out.
    ///
    /// # Errors
    /// It is not there, or of another element type or shape.
    pub fn take<A: Item>(&mut self, name: &str, shape: &[usize]) -> Result<ArrayD<A>, CheckpointError> {
        let tensor = self.take_tensor(name, A::NAME, shape)?;
        Ok(A::unwrap(tensor).expect("of the element type that was asked for"))
    }

    /// As [`take`](Checkpoint::take), of an element type known by its name alone.
    ///
    /// # Errors
    /// As there.
    pub fn take_tensor(
        &mut self,
        name: &str,
        expected: &'static str,
        shape: &[usize],
    ) -> Result<Tensor, CheckpointError> {
        let (path, name) = (self.path.clone(), name.to_string());
        let Some(tensor) = self.tensors.remove(&name) else {
            return Err(CheckpointError::MissingTensor { path, name });
        };
        if tensor.element() != expected {
            return Err(CheckpointError::WrongDType { path, name, found: tensor.element(), expected });
        }
        if tensor.shape() != shape {
            let (found, expected) = (tensor.shape().to_vec(), shape.to_vec());
            return Err(CheckpointError::WrongShape { path, name, found, expected });
        }
        Ok(tensor)
    }

    /// Takes a note out.
    ///
    /// # Errors
    /// It is not there or does not parse.
    pub fn take_note<V: FromStr>(&mut self, key: &str) -> Result<V, CheckpointError> {
        let found = self.notes.remove(key);
        found.as_deref().and_then(|text| text.parse().ok()).ok_or_else(|| CheckpointError::Note {
            path: self.path.clone(),
            key: key.to_string(),
            found,
            expected: std::any::type_name::<V>(),
        })
    }

    /// Takes a note out whose value must be one that `holds` says yes to; `allowed` says in words which these are.
    ///
    /// # Errors
    /// It is not there, does not parse, or has another value.
    ///
    /// ```
    /// # use retrograd_runtime::checkpoint::Checkpoint;
    /// let mut c = Checkpoint::new();
    /// c.note("rate", f64::NAN);
    /// let error = c.take_note_if("rate", "a finite number is needed", |r: &f64| r.is_finite()).unwrap_err();
    /// assert!(error.to_string().ends_with("note `rate` is `NaN`; a finite number is needed"));
    /// ```
    pub fn take_note_if<V: FromStr>(
        &mut self,
        key: &str,
        allowed: &'static str,
        holds: impl FnOnce(&V) -> bool,
    ) -> Result<V, CheckpointError> {
        let found = self.get_note(key).unwrap_or_default().to_string();
        let value = self.take_note(key)?;
        match holds(&value) {
            true => Ok(value),
            false => Err(self.refuse_note(key, found, allowed)),
        }
    }

    /// The error of a note with a value that is not allowed.
    pub(crate) fn refuse_note(&self, key: &str, found: String, allowed: impl Into<String>) -> CheckpointError {
        CheckpointError::NoteValue { path: self.path.clone(), key: key.to_string(), found, allowed: allowed.into() }
    }

    /// The error of a tensor with a value that is not allowed.
    pub(crate) fn refuse_tensor(&self, name: &str, found: f64, allowed: &'static str) -> CheckpointError {
        CheckpointError::TensorValue { path: self.path.clone(), name: name.to_string(), found, allowed }
    }

    /// Takes the name of the program out, which must be this one.
    ///
    /// # Errors
    /// It is not there, or another.
    pub(crate) fn take_program(&mut self, expected: &str) -> Result<(), CheckpointError> {
        let found: String = self.take_note("program")?;
        match found == expected {
            true => Ok(()),
            false => {
                let (path, expected) = (self.path.clone(), expected.to_string());
                Err(CheckpointError::OtherProgram { path, found, expected })
            }
        }
    }

    /// Takes out all tensors of these names.
    pub(crate) fn discard(&mut self, names: impl Fn(&str) -> bool) {
        self.tensors.retain(|name, _| !names(name));
    }

    /// Nothing may be left of the tensors. Notes may.
    ///
    /// # Errors
    /// The names of tensors that nobody took.
    pub fn finish(self) -> Result<(), CheckpointError> {
        match self.tensors.is_empty() {
            true => Ok(()),
            false => Err(CheckpointError::UnknownTensors { path: self.path, left: self.tensors.into_keys().collect() }),
        }
    }

    /// Writes the file. After a crash at any moment it is the old one or the new one, whole.
    ///
    /// A file that is replaced gives its mode, owner and group to the new one; a new one has the mode that the process's
    /// umask says. A symbolic link stays, and what it leads to is replaced. What a killed process has left of an earlier
    /// save in that directory (`.retrograd-….tmp`) is removed.
    ///
    /// # Errors
    /// What the system refused; a path that is a directory, a device, a pipe or a socket. The file is the old one then,
    /// but where the error says that the new one is in its place and only its directory could not be flushed.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), CheckpointError> {
        replace::replace(path.as_ref(), &self.to_bytes()).map_err(|refused| match refused {
            Refused::NotAFile(path, found) => CheckpointError::NotAFile { path, found },
            Refused::System(action, path, reason) => CheckpointError::Io { action, path, reason },
        })
    }

    /// Reads a file and verifies all of it.
    ///
    /// # Errors
    /// It cannot be read, is something else, is damaged, or was written by a later version.
    pub fn load(path: impl AsRef<Path>) -> Result<Checkpoint, CheckpointError> {
        let path = path.as_ref().to_path_buf();
        let failed = |reason: io::Error| CheckpointError::Io { action: "read", path: path.clone(), reason };
        // Asked before it is opened too: a pipe cannot be opened before someone writes to it.
        let metadata = std::fs::metadata(&path).map_err(failed)?;
        if let Some(found) = replace::irregular(&metadata) {
            return Err(CheckpointError::NotAFile { path, found });
        }
        let mut file = File::open(&path).map_err(failed)?;
        let size = file.metadata().map_err(failed)?.len();
        let mut bytes = Vec::new();
        let room = usize::try_from(size).ok().and_then(|size| bytes.try_reserve_exact(size).ok());
        let Some(()) = room else {
            return Err(failed(io::Error::new(
                io::ErrorKind::OutOfMemory,
                format!("there is no room for its {size} bytes"),
            )));
        };
        file.read_to_end(&mut bytes).map_err(failed)?;
        Checkpoint::from_bytes(path, &bytes)
    }

    fn to_bytes(&self) -> Vec<u8> {
        let bytes: Vec<Vec<u8>> = self.tensors.values().map(Tensor::bytes).collect();
        let mut header = HashMap::from([
            (FORMAT_KEY.to_string(), FORMAT.to_string()),
            (CHECKSUM_KEY.to_string(), self.checksum(bytes.iter().map(Vec::as_slice))),
        ]);
        header.extend(self.notes.iter().map(|(key, text)| (format!("{NOTE}{key}"), text.clone())));
        let views = self.tensors.iter().zip(&bytes).map(|((name, tensor), bytes)| {
            let view = TensorView::new(tensor.dtype(), tensor.shape().to_vec(), bytes);
            (name, view.expect("as many bytes as the shape asks for"))
        });
        safetensors::serialize(views, Some(header)).expect("names and shapes are a small part of a file")
    }

    fn from_bytes(path: PathBuf, bytes: &[u8]) -> Result<Checkpoint, CheckpointError> {
        let other = |reason: String| CheckpointError::NotACheckpoint { path: path.clone(), reason };
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(|e| other(e.to_string()))?;
        let file = SafeTensors::deserialize(bytes).map_err(|e| other(e.to_string()))?;
        let mut header = header.metadata().clone().unwrap_or_default();
        match header.remove(FORMAT_KEY) {
            Some(format) if format == FORMAT => {}
            Some(found) if found.starts_with(FAMILY) => {
                return Err(CheckpointError::Version { path, found, supported: FORMAT });
            }
            _ => return Err(other(format!("its header has no `{FORMAT_KEY}` of `{FORMAT}`"))),
        }
        let stated = header.remove(CHECKSUM_KEY);

        let mut checkpoint = Checkpoint { path: path.clone(), ..Checkpoint::default() };
        for (key, text) in header {
            let key = key.strip_prefix(NOTE).ok_or_else(|| other(format!("its header has an unknown key `{key}`")))?;
            checkpoint.notes.insert(key.to_string(), text);
        }
        let mut data = BTreeMap::new();
        for (name, view) in file.tensors() {
            let Some(tensor) = Tensor::from_view(&view) else {
                return Err(other(format!("tensor `{name}` is of {}, which no checkpoint has", view.dtype())));
            };
            data.insert(name.clone(), view.data());
            checkpoint.tensors.insert(name, tensor);
        }
        if stated != Some(checkpoint.checksum(data.into_values())) {
            return Err(CheckpointError::Damaged { path });
        }
        Ok(checkpoint)
    }

    /// A hash over all notes and tensors, given the bytes of the tensors in order. Each text goes in behind its
    /// length, so that no two checkpoints run together to the same bytes.
    fn checksum<'b>(&self, data: impl Iterator<Item = &'b [u8]>) -> String {
        let mut hash = FNV_START;
        let mut add = |bytes: &[u8]| {
            hash = fnv1a(fnv1a(hash, &(bytes.len() as u64).to_le_bytes()), bytes);
        };
        add(&(self.notes.len() as u64).to_le_bytes());
        for (key, text) in &self.notes {
            add(key.as_bytes());
            add(text.as_bytes());
        }
        for ((name, tensor), bytes) in self.tensors.iter().zip(data) {
            add(name.as_bytes());
            add(tensor.element().as_bytes());
            add(&tensor.shape().iter().flat_map(|&d| (d as u64).to_le_bytes()).collect::<Vec<u8>>());
            add(bytes);
        }
        format!("{hash:016x}")
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use ndarray::arr0;

    use safetensors::tensor::Dtype;

    use super::*;

    /// A directory of one test, removed at its end.
    struct Dir(PathBuf);

    impl Dir {
        fn new(name: &str) -> Dir {
            let dir = std::env::temp_dir().join(format!("retrograd-checkpoint-{name}-{}", std::process::id()));
            fs::create_dir_all(&dir).unwrap();
            Dir(dir)
        }

        fn file(&self) -> PathBuf {
            self.0.join("model.safetensors")
        }

        fn entries(&self) -> Vec<String> {
            fs::read_dir(&self.0).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    fn array<A: Clone>(shape: &[usize], values: &[A]) -> ArrayD<A> {
        ArrayD::from_shape_vec(shape, values.to_vec()).unwrap()
    }

    fn sample() -> Checkpoint {
        let mut c = Checkpoint::new();
        c.insert("gates.w", array(&[2, 3], &[1.0f32, -0.0, f32::MIN_POSITIVE / 4.0, 3.4e38, -1e-30, 0.1]));
        c.insert("gates.b", array(&[2], &[f64::MAX, 1.0 / 3.0]));
        c.insert("label", array(&[3, 1], &[i32::MIN, 0, i32::MAX]));
        c.insert("steps", arr0(u64::MAX).into_dyn());
        c.insert("nothing", array::<f32>(&[0, 4], &[]));
        c.note("cell", "lstm \"wide\" λ");
        c.note("rate", 3e-3f64);
        c
    }

    #[test]
    fn what_is_loaded_is_what_was_saved() {
        let dir = Dir::new("round");
        sample().save(dir.file()).unwrap();
        let loaded = Checkpoint::load(dir.file()).unwrap();
        assert_eq!((&loaded.tensors, &loaded.notes), (&sample().tensors, &sample().notes));
        assert_eq!(dir.entries(), ["model.safetensors"], "nothing else is left in the directory");
    }

    #[test]
    fn bits_survive() {
        // Signed zeros, infinities, subnormals and NaNs with their payloads, which `==` cannot see.
        let bits = [0x8000_0000, 0x7f80_0000, 0xff80_0000, 0x7fc0_0001, 0xffc1_2345, 0x0000_0001, 0x807f_ffff];
        let wide = [0x7ff8_0000_0000_0001, 0xfff8_dead_beef_0000, 1u64, 1 << 63];
        let dir = Dir::new("bits");
        let mut saved = Checkpoint::new();
        // A view in another order than memory: what counts is the logical order.
        saved.insert("f32", array(&[7], &bits).mapv(f32::from_bits));
        saved.insert("f64", array(&[2, 2], &wide).mapv(f64::from_bits).reversed_axes());
        saved.save(dir.file()).unwrap();
        let mut loaded = Checkpoint::load(dir.file()).unwrap();
        assert_eq!(loaded.take::<f32>("f32", &[7]).unwrap().mapv(f32::to_bits), array(&[7], &bits));
        let f64s = loaded.take::<f64>("f64", &[2, 2]).unwrap().mapv(f64::to_bits);
        assert_eq!(f64s, array(&[2, 2], &wide).reversed_axes());
    }

    #[test]
    fn every_truncation_is_refused() {
        let bytes = sample().to_bytes();
        for n in 0..bytes.len() {
            let result = Checkpoint::from_bytes(PathBuf::from("cut"), &bytes[..n]);
            assert!(matches!(result, Err(CheckpointError::NotACheckpoint { .. })), "{n} bytes: {result:?}");
        }
    }

    #[test]
    fn every_damaged_byte_is_seen_or_without_effect() {
        let bytes = sample().to_bytes();
        let (mut damaged, mut harmless) = (0, 0);
        for at in 0..bytes.len() {
            for flip in [0x01, 0x20, 0x80] {
                let mut bytes = bytes.clone();
                bytes[at] ^= flip;
                match Checkpoint::from_bytes(PathBuf::new(), &bytes) {
                    Ok(c) => {
                        assert_eq!(c, sample(), "byte {at} ^ {flip:#x}");
                        harmless += 1;
                    }
                    Err(CheckpointError::Damaged { .. }) => damaged += 1,
                    Err(_) => {}
                }
            }
        }
        assert!(damaged > 100, "the checksum found {damaged}");
        assert!(harmless < 10, "{harmless} were let pass");
    }

    #[test]
    fn a_failed_save_leaves_what_was_there() {
        let dir = Dir::new("fail");
        fs::create_dir_all(dir.file().join("inside")).unwrap();
        let e = sample().save(dir.file()).unwrap_err();
        assert!(matches!(e, CheckpointError::NotAFile { found: "a directory", .. }), "{e:?}");
        assert_eq!(dir.entries(), ["model.safetensors"], "no temporary file is left");
        assert!(dir.file().join("inside").is_dir());

        let e = sample().save(dir.0.join("absent").join("model")).unwrap_err();
        assert!(e.to_string().starts_with("cannot write "), "{e}");
        assert!(matches!(sample().save("/").unwrap_err(), CheckpointError::Io { .. }));
    }

    #[test]
    fn a_save_replaces_the_whole_file() {
        let dir = Dir::new("replace");
        sample().save(dir.file()).unwrap();
        let mut small = Checkpoint::new();
        small.note("steps", 3);
        small.save(dir.file()).unwrap();
        let mut loaded = Checkpoint::load(dir.file()).unwrap();
        assert_eq!((loaded.names().count(), loaded.take_note("steps").ok()), (0, Some(3)));
    }

    fn text(e: CheckpointError) -> String {
        e.to_string()
    }

    #[test]
    fn what_is_taken_out_must_fit() {
        let mut c = Checkpoint { path: PathBuf::from("m.st"), ..sample() };
        assert_eq!(text(c.take::<f32>("gates.v", &[1]).unwrap_err()), "m.st has no tensor `gates.v`");
        assert_eq!(
            text(c.take::<f32>("gates.w", &[3, 2]).unwrap_err()),
            "m.st: tensor `gates.w` has shape [2, 3]; the program takes [3, 2]"
        );
        assert_eq!(
            text(c.take::<f32>("label", &[3, 1]).unwrap_err()),
            "m.st: tensor `label` is of i32; the program takes f32"
        );
        assert_eq!(
            text(c.take_note::<u64>("cell").unwrap_err()),
            "m.st: note `cell` is `lstm \"wide\" λ`; a value of type u64 is needed"
        );
        assert_eq!(
            text(c.take_note::<u64>("seed").unwrap_err()),
            "m.st: note `seed` is missing; a value of type u64 is needed"
        );
        assert_eq!(c.take_note::<f64>("rate").unwrap(), 3e-3);
        assert_eq!(
            text(c.finish().unwrap_err()),
            "m.st has tensors that the program does not have: `gates.b`, `nothing`, `steps`"
        );
    }

    #[test]
    fn other_files_are_refused() {
        let dir = Dir::new("other");
        let refused = |bytes: &[u8]| {
            fs::write(dir.file(), bytes).unwrap();
            let text = text(Checkpoint::load(dir.file()).unwrap_err());
            text.replace(&dir.file().display().to_string(), "FILE")
        };
        assert_eq!(refused(b""), "FILE is not a checkpoint: header too small");
        assert!(refused(b"fn main() { println!(\"a text\"); }").starts_with("FILE is not a checkpoint: "));

        let values = 1.0f32.to_le_bytes();
        let foreign = |dtype, header: &[(&str, &str)]| {
            let header = header.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
            let view = TensorView::new(dtype, vec![4 / (dtype.bitsize() / 8)], &values).unwrap();
            safetensors::serialize([("w", view)], Some(header)).unwrap()
        };
        assert_eq!(
            refused(&foreign(Dtype::F32, &[("format", "pt")])),
            "FILE is not a checkpoint: its header has no `format` of `retrograd 1`"
        );
        assert_eq!(
            refused(&foreign(Dtype::F32, &[("format", "retrograd 2")])),
            "FILE has format retrograd 2; this version reads format retrograd 1"
        );
        assert_eq!(
            refused(&foreign(Dtype::BF16, &[("format", FORMAT)])),
            "FILE is not a checkpoint: tensor `w` is of BF16, which no checkpoint has"
        );
        assert_eq!(
            refused(&foreign(Dtype::F32, &[("format", FORMAT)])),
            "FILE is damaged: its contents do not match their checksum"
        );
        assert!(text(Checkpoint::load(dir.0.join("absent")).unwrap_err()).starts_with("cannot read "));
    }
}
