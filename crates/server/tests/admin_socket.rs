//! The file of the admin socket. Alone in its process: a child of another test would hold the sockets open for a
//! moment after they were closed here.

use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::Path;

use tempalias_server::admin::{AdminSocket, SocketError};

#[tokio::test]
async fn the_socket_is_private_and_replaces_only_what_is_dead() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("admin.sock");
    let socket = AdminSocket::bind(&path).unwrap();
    let meta = std::fs::metadata(&path).unwrap();
    assert!(meta.file_type().is_socket());
    assert_eq!(meta.permissions().mode() & 0o777, 0o660);
    assert_eq!(
        std::fs::read_dir(folder.path()).unwrap().count(),
        1,
        "the name it was made under is still there"
    );
    assert!(matches!(AdminSocket::bind(&path), Err(SocketError::InUse(_))));
    drop(socket);
    assert!(!path.exists());

    // What a server that was killed leaves: a socket that nobody listens on.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    drop(std::os::unix::net::UnixListener::bind(folder.path().join("admin.sock.new")).unwrap());
    let socket = AdminSocket::bind(&path).unwrap();
    // A successor took the place: its socket stays when we go.
    std::fs::remove_file(&path).unwrap();
    let successor = AdminSocket::bind(&path).unwrap();
    drop(socket);
    assert!(path.exists());
    drop(successor);

    std::fs::write(&path, "no socket").unwrap();
    assert!(matches!(AdminSocket::bind(&path), Err(SocketError::NotASocket(_))));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "no socket");
    let nowhere = folder.path().join("none/admin.sock");
    assert!(matches!(AdminSocket::bind(&nowhere), Err(SocketError::NoFolder(_))));
    let long = Path::new("/tmp").join("x".repeat(120));
    assert!(matches!(AdminSocket::bind(&long), Err(SocketError::TooLong(_))));
}
