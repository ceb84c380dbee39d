"""The bundle archive: strict streaming reader, writer, signer, and the content-addressed store."""
