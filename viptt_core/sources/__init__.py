"""Where data sets come from: the registry, downloads that resume and are verified, archives unpacked safely."""
