//! A proof as a folder: for each entry its leaf, its `.tlog-proof`, and what lies beside it.
//!
//! ```text
//! INDEX.leaf            the entry's bytes
//! INDEX.tlog-proof      C2SP tlog-proof
//! INDEX.FIELD.payload   salt (16 bytes) and content of a field that is kept beside
//! ```

use audit_store::prove::Proven;
use std::fs;
use std::io;
use std::path::Path;
use tlog::Proof;

/// Writes a proof into `dir`, which must not be there.
///
/// # Errors
/// It is there, or cannot be written.
pub fn write_proof(dir: &Path, proven: &[Proven]) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().mode(0o700).create(dir)?;
    for one in proven {
        fs::write(dir.join(format!("{}.leaf", one.index)), &one.leaf)?;
        fs::write(dir.join(format!("{}.tlog-proof", one.index)), one.proof.to_string())?;
        for (field, payload) in &one.beside {
            fs::write(dir.join(format!("{}.{field}.payload", one.index)), payload)?;
        }
    }
    Ok(())
}

/// Reads a proof; `None`: the folder has none.
///
/// # Errors
/// It cannot be read, or a file of it is none.
pub fn read_proof(dir: &Path) -> io::Result<Option<Vec<Proven>>> {
    let wrong = |path: &Path, why: String| io::Error::new(io::ErrorKind::InvalidData, format!("{}: {why}", path.display()));
    let mut names = Vec::new();
    for file in fs::read_dir(dir)? {
        names.extend(file?.file_name().into_string());
    }
    let mut proven = Vec::new();
    for index in names.iter().filter_map(|name| name.strip_suffix(".leaf")?.parse::<u64>().ok()) {
        let path = dir.join(format!("{index}.tlog-proof"));
        let proof = Proof::parse(&fs::read(&path)?).map_err(|error| wrong(&path, error.to_string()))?;
        let (prefix, mut beside) = (format!("{index}."), Vec::new());
        for name in &names {
            let field = name.strip_prefix(&prefix).and_then(|rest| rest.strip_suffix(".payload")?.parse::<u32>().ok());
            if let Some(field) = field {
                beside.push((field, fs::read(dir.join(name))?));
            }
        }
        proven.push(Proven { index, leaf: fs::read(dir.join(format!("{index}.leaf")))?, beside, proof });
    }
    Ok((!proven.is_empty()).then_some(proven))
}
