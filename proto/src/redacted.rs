//! Messages that hold bytes nobody should read in a log: their `Debug` shows lengths, the uid and
//! the key id, and those with a seed wipe it when they are dropped.

use std::fmt;

use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::stored::EncryptedObject;
use crate::v2::{DecryptRequest, DecryptResponse, EncryptRequest, EncryptResponse};

impl fmt::Debug for EncryptRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EncryptRequest")
            .field("plaintext_len", &self.plaintext.len())
            .field("uid", &self.uid)
            .finish()
    }
}

impl fmt::Debug for EncryptResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EncryptResponse")
            .field("ciphertext_len", &self.ciphertext.len())
            .field("key_id", &self.key_id)
            .field("annotations", &self.annotations.len())
            .finish()
    }
}

impl fmt::Debug for DecryptRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DecryptRequest")
            .field("ciphertext_len", &self.ciphertext.len())
            .field("uid", &self.uid)
            .field("key_id", &self.key_id)
            .field("annotations", &self.annotations.len())
            .finish()
    }
}

impl fmt::Debug for DecryptResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DecryptResponse")
            .field("plaintext_len", &self.plaintext.len())
            .finish()
    }
}

impl fmt::Debug for EncryptedObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EncryptedObject")
            .field("encrypted_data_len", &self.encrypted_data.len())
            .field("key_id", &self.key_id)
            .field("encrypted_dek_source_len", &self.encrypted_dek_source.len())
            .field("annotations", &self.annotations.len())
            .field("encrypted_dek_source_type", &self.encrypted_dek_source_type)
            .finish()
    }
}

impl Drop for EncryptRequest {
    fn drop(&mut self) {
        self.plaintext.zeroize();
    }
}

impl ZeroizeOnDrop for EncryptRequest {}

impl Drop for DecryptResponse {
    fn drop(&mut self) {
        self.plaintext.zeroize();
    }
}

impl ZeroizeOnDrop for DecryptResponse {}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// Bytes whose decimal, hex and text forms are easy to find in a print.
    const SECRET: &[u8] = b"SEEDSEED";

    fn annotations() -> BTreeMap<String, Vec<u8>> {
        BTreeMap::from([("a.example".to_owned(), SECRET.to_vec())])
    }

    #[test]
    fn requests_and_answers_print_lengths_and_names() {
        let encrypt = EncryptRequest {
            plaintext: SECRET.to_vec(),
            uid: "u1".to_owned(),
        };
        assert_eq!(
            format!("{encrypt:?}"),
            r#"EncryptRequest { plaintext_len: 8, uid: "u1" }"#
        );

        let encrypted = EncryptResponse {
            ciphertext: SECRET.to_vec(),
            key_id: "k1".to_owned(),
            annotations: annotations(),
        };
        assert_eq!(
            format!("{encrypted:?}"),
            r#"EncryptResponse { ciphertext_len: 8, key_id: "k1", annotations: 1 }"#
        );

        let decrypt = DecryptRequest {
            ciphertext: SECRET.to_vec(),
            uid: "u2".to_owned(),
            key_id: "k1".to_owned(),
            annotations: annotations(),
        };
        assert_eq!(
            format!("{decrypt:?}"),
            r#"DecryptRequest { ciphertext_len: 8, uid: "u2", key_id: "k1", annotations: 1 }"#
        );

        let decrypted = DecryptResponse {
            plaintext: SECRET.to_vec(),
        };
        assert_eq!(
            format!("{decrypted:?}"),
            "DecryptResponse { plaintext_len: 8 }"
        );
    }

    #[test]
    fn stored_objects_print_lengths_and_names() {
        let object = EncryptedObject {
            encrypted_data: SECRET.to_vec(),
            key_id: "k1".to_owned(),
            encrypted_dek_source: SECRET.to_vec(),
            annotations: annotations(),
            encrypted_dek_source_type: 1,
        };
        assert_eq!(
            format!("{object:?}"),
            "EncryptedObject { encrypted_data_len: 8, key_id: \"k1\", \
             encrypted_dek_source_len: 8, annotations: 1, encrypted_dek_source_type: 1 }"
        );
    }

    #[test]
    fn messages_with_a_seed_are_wiped_when_dropped() {
        fn wiped<T: ZeroizeOnDrop>() {}
        wiped::<EncryptRequest>();
        wiped::<DecryptResponse>();
    }
}
