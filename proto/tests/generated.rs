//! The checked-in code is what the `.proto` files say. Regenerate it with
//! `CLAVIGER_REGENERATE=1 cargo test -p claviger-proto`.

use std::path::Path;
use std::{env, fs, io};

/// The output file of each proto package.
const FILES: [&str; 2] = ["v2.rs", "stored.rs"];

/// Messages that hold seeds, wrapped seeds or objects: `src/redacted.rs` has their `Debug`.
const REDACTED: [&str; 5] = [
    ".v2.EncryptRequest",
    ".v2.EncryptResponse",
    ".v2.DecryptRequest",
    ".v2.DecryptResponse",
    ".stored.EncryptedObject",
];

const HEADER: &str = "\
// Generated from proto/v2/*.proto by proto/tests/generated.rs; do not edit. To write it again:
// CLAVIGER_REGENERATE=1 cargo test -p claviger-proto

";

#[test]
fn checked_in_code_is_what_the_proto_files_say() {
    let crate_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    let fresh = tempfile::tempdir().unwrap();
    generate(crate_dir, fresh.path()).unwrap();

    for file in FILES {
        let checked_in = crate_dir.join("src").join(file);
        let wanted = HEADER.to_owned() + &fs::read_to_string(fresh.path().join(file)).unwrap();
        if env::var_os("CLAVIGER_REGENERATE").is_some() {
            fs::write(&checked_in, &wanted).unwrap();
        }
        let found = fs::read_to_string(&checked_in).unwrap_or_default();
        assert!(
            found == wanted,
            "proto/src/{file} is not what proto/v2 says; write it again with\n    \
             CLAVIGER_REGENERATE=1 cargo test -p claviger-proto"
        );
    }
    let made = fs::read_dir(fresh.path()).unwrap().count();
    assert_eq!(made, FILES.len(), "a package has no file in FILES");
}

fn generate(crate_dir: &Path, into: &Path) -> io::Result<()> {
    let files = ["v2/api.proto", "v2/encrypted_object.proto"];
    let descriptors = protox::compile(files, [crate_dir]).map_err(io::Error::other)?;
    tonic_prost_build::configure()
        .build_transport(false)
        .codec_path("crate::Codec")
        .btree_map(".")
        .skip_debug(REDACTED)
        .out_dir(into)
        .compile_fds(descriptors)
}
