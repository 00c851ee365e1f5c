"""Certificates for a TLS server, made by openssl."""

import os


class Certificates:
    """A certificate authority, and a server certificate for `localhost` and 127.0.0.1 in `directory`."""

    def __init__(self, place):
        self.directory = place.directory()
        self._place = place
        self.ca = self._path("ca.crt")
        self.stranger = self._path("stranger.crt")  # another authority's
        self.key = self._path("server.key")
        self.certificate = self._path("server.crt")
        # RSA, and no newer options: the oldest servers bring their own OpenSSL.
        self._authority("ca")
        self._authority("stranger")
        self._openssl("req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-keyout", self.key,
                      "-out", self._path("server.csr"))
        names = place.write(self._path("names"), "subjectAltName = DNS:localhost, IP:127.0.0.1\n")
        self._openssl("x509", "-req", "-in", self._path("server.csr"), "-CA", self.ca, "-CAkey", self._path("ca.key"),
                      "-CAcreateserial", "-days", "7", "-extfile", names, "-out", self.certificate)

    def settings(self):
        """For Clusters.create."""
        return {"ssl": "on", "ssl_cert_file": f"'{self.certificate}'", "ssl_key_file": f"'{self.key}'"}

    def _authority(self, name):
        self._openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "7", "-subj", f"/CN=test {name}",
                      "-keyout", self._path(f"{name}.key"), "-out", self._path(f"{name}.crt"))

    def _path(self, name):
        return os.path.join(self.directory, name)

    def _openssl(self, *arguments):
        self._place.call(["openssl", *arguments])
