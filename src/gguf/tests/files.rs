//! Files on the disk: missing, split, shrinking, half written.

use super::*;
use std::fs;

/// A file with one tensor of `values` ones, in a folder of its own.
fn one_tensor(values: usize) -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let mut writer = Writer::new(Metadata::new()).unwrap();
    writer.tensor("ones", DType::F32, [values]).unwrap();
    writer.write_file(&path, |_, out| out.put(bytemuck::cast_slice(&vec![1f32; values]))).unwrap();
    (folder, path)
}

fn message<T: std::fmt::Debug>(result: Result<T>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn missing_file_folder_and_empty_file() {
    let folder = tempfile::tempdir().unwrap();
    for mmap in [Mmap::Yes, Mmap::No] {
        let missing = message(Gguf::open_with(folder.path().join("none.gguf"), mmap));
        assert!(missing.contains("none.gguf: can't open the file") && missing.contains("check the path"), "{missing}");
        assert!(message(Gguf::open_with(folder.path(), mmap)).contains("not a file"));
        let empty = folder.path().join("empty.gguf");
        fs::write(&empty, []).unwrap();
        assert!(message(Gguf::open_with(&empty, mmap)).contains("empty.gguf, offset 0: the file ends inside"));
    }
}

#[cfg(unix)]
#[test]
fn mapped_file_that_shrinks_is_an_error_and_not_the_end() {
    const VALUES: usize = 1 << 16;
    let (_folder, path) = one_tensor(VALUES);
    let (_other_folder, other_path) = one_tensor(VALUES);
    let (gguf, other) = (Gguf::open(&path).unwrap(), Gguf::open(&other_path).unwrap());
    let tensor = gguf.need_tensor("ones").unwrap();
    let data = gguf.data(tensor).unwrap();
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(4096).unwrap();

    // Reading the file notices before any page is lost.
    let mut bytes = [0; 4];
    assert!(message(gguf.read_into(tensor, VALUES, &mut bytes)).contains("model.gguf: the file shrank"));
    gguf.check().unwrap();

    // Reading the lost pages, on several threads at once, gives zeros and marks the map.
    let values: &[f32] = bytemuck::cast_slice(data);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert_eq!(values[VALUES / 2..].iter().sum::<f32>(), 0.0));
        }
    });
    assert!(message(gguf.check()).contains("model.gguf: the file shrank"));
    assert!(message(gguf.data(tensor)).contains("tensor \"ones\""));
    assert_eq!(values[0], 1.0, "what is left of the file can still be read");

    // Others are not concerned.
    other.check().unwrap();
    assert_eq!(other.data(other.need_tensor("ones").unwrap()).unwrap()[VALUES..VALUES + 4], 1f32.to_le_bytes());
}

#[test]
fn file_read_into_memory_may_shrink() {
    let (_folder, path) = one_tensor(1 << 12);
    let gguf = Gguf::open_with(&path, Mmap::No).unwrap();
    fs::write(&path, []).unwrap();
    let tensor = gguf.need_tensor("ones").unwrap();
    assert!(gguf.data(tensor).unwrap().chunks_exact(4).all(|x| x == 1f32.to_le_bytes()));
    gguf.check().unwrap();
}

#[test]
fn unaligned_tensors_are_copied_to_be_cast() {
    let mut metadata = Metadata::new();
    metadata.set("general.alignment", 1u32);
    let mut writer = Writer::new(metadata).unwrap();
    for i in 0..9 {
        writer.tensor(format!("byte.{i}"), DType::I8, [1]).unwrap();
        writer.tensor(format!("float.{i}"), DType::F32, [2]).unwrap();
    }
    let bytes = writer
        .to_bytes(|i, out| if i % 2 == 0 { out.put(&[9]) } else { out.put(bytemuck::cast_slice(&[i as f32, 0.5])) })
        .unwrap();
    let gguf = Gguf::from_bytes(bytes).unwrap();
    let mut copied = 0;
    for (i, tensor) in gguf.tensors().iter().enumerate().filter(|(i, _)| i % 2 == 1) {
        let data = gguf.data_aligned(tensor).unwrap();
        assert_eq!(bytemuck::cast_slice::<u8, f32>(&data), [i as f32, 0.5]);
        copied += usize::from(data.is_copied());
    }
    assert_eq!(copied, 8, "of nine starts one byte further each, one is a multiple of 8");
}

#[test]
fn tensors_of_another_model_and_ranges_past_the_end_are_errors() {
    let (_folder, path) = one_tensor(64);
    let big = Gguf::open(&path).unwrap();
    let small = Gguf::from_bytes(Writer::new(Metadata::new()).unwrap().to_bytes(|_, _| Ok(())).unwrap()).unwrap();
    let tensor = big.need_tensor("ones").unwrap();
    assert!(message(small.data(tensor)).contains("tensor \"ones\" is not of this model"));
    assert!(message(big.read_into(tensor, 253, &mut [0; 4])).contains("bytes 253 + 4 of a tensor of 256"));
    assert!(message(big.read_into(tensor, usize::MAX, &mut [0; 4])).contains("of a tensor of 256"));
    assert!(message(small.need_tensor("ones")).contains("the file has no tensor ones"));
}

#[test]
fn split_models_need_all_their_files() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = Writer::new(Metadata::new()).unwrap();
    for name in ["a", "b", "c"] {
        writer.tensor(name, DType::F32, [1]).unwrap();
    }
    let produce = |i: usize, out: &mut Sink<'_>| out.put(&(i as f32).to_le_bytes());
    let paths = writer.write_parts(folder.path().join("m"), Parts::Tensors(1), produce).unwrap();
    let names: Vec<_> = paths.iter().map(|p| p.file_name().unwrap().to_str().unwrap()).collect();
    assert_eq!(names, ["m-00001-of-00003.gguf", "m-00002-of-00003.gguf", "m-00003-of-00003.gguf"]);
    let gguf = Gguf::open(&paths[0]).unwrap();
    assert_eq!(gguf.data(gguf.need_tensor("c").unwrap()).unwrap(), 2f32.to_le_bytes());
    assert_eq!(crate::gguf::paths(&paths[0], &gguf).unwrap(), paths);
    let (_folder, whole) = one_tensor(64);
    assert_eq!(crate::gguf::paths(&whole, &Gguf::open(&whole).unwrap()).unwrap(), [whole]);

    let later = message(Gguf::open(&paths[1]));
    assert!(later.contains("file 2 of 3 of a split model") && later.contains("give the first file"), "{later}");

    let renamed = folder.path().join("renamed.gguf");
    fs::copy(&paths[0], &renamed).unwrap();
    assert!(message(Gguf::open(&renamed)).contains("must have a name ending in -00001-of-00003.gguf"));

    let third = fs::read(&paths[2]).unwrap();
    fs::copy(&paths[1], &paths[2]).unwrap();
    assert!(message(Gguf::open(&paths[0])).contains("m-00003-of-00003.gguf: this is file 2 of 3"));
    fs::remove_file(&paths[2]).unwrap();
    let missing = message(Gguf::open(&paths[0]));
    assert!(missing.contains("m-00003-of-00003.gguf: can't open") && missing.contains("all 3 files"), "{missing}");

    let sources = |files: &[&[u8]]| files.iter().map(|f| Source::from_bytes(f.to_vec())).collect::<Vec<_>>();
    let (first, second) = (fs::read(&paths[0]).unwrap(), fs::read(&paths[1]).unwrap());
    assert_eq!(Gguf::from_sources(sources(&[&first, &second, &third])).unwrap().tensors().len(), 3);
    assert!(message(Gguf::from_sources(sources(&[&first, &second]))).contains("split over 3 files, but 2 were given"));
    assert!(message(Gguf::from_sources(sources(&[&first, &third, &second]))).contains("file 3 of 3"));
    assert!(message(Gguf::from_sources(vec![])).contains("at least one file"));
}

#[test]
fn parts_of_different_models_do_not_join() {
    let part = |no: u16, name: &str, in_all: i32| {
        let mut metadata = Metadata::new();
        metadata.set("split.no", no);
        metadata.set("split.count", 2u16);
        metadata.set("split.tensors.count", in_all);
        let mut writer = Writer::new(metadata).unwrap();
        writer.tensor(name, DType::F32, [1]).unwrap();
        Source::from_bytes(writer.to_bytes(|_, out| out.put(&[0; 4])).unwrap()).named(format!("part {no}"))
    };
    let join = |parts: [Source; 2]| message(Gguf::from_sources(parts.into()));
    assert!(join([part(0, "a", 2), part(1, "a", 2)]).contains("part 1, tensor \"a\": the name occurs twice"));
    assert!(join([part(0, "a", 3), part(1, "b", 3)]).contains("2 tensors in 2 files, but split.tensors.count says 3"));
}

#[test]
fn failed_writes_leave_what_was_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    fs::write(&path, "old").unwrap();
    let mut writer = Writer::new(Metadata::new()).unwrap();
    writer.tensor("a", DType::F32, [2]).unwrap();
    let failed = message(writer.write_file(&path, |_, out| {
        out.put(&[1; 4])?;
        Err(Error::usage("changed my mind"))
    }));
    assert!(failed.contains("model.gguf, tensor \"a\": changed my mind"), "{failed}");
    assert_eq!(fs::read(&path).unwrap(), b"old");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "the temporary file is gone");
    writer.write_file(&path, |_, out| out.put(&[1; 8])).unwrap();
    assert_eq!(Gguf::open(&path).unwrap().tensors().len(), 1);
    assert!(message(writer.write_file(folder.path().join("none/model.gguf"), |_, _| Ok(()))).contains("can't write"));
}
