# The lab's closures: a static busybox and what it can build, without nixpkgs. `seed` lies beside this file: busybox and its applets.
let
  seed = "${./seed}";
  build =
    name: script:
    builtins.derivation {
      inherit name seed;
      system = builtins.currentSystem;
      builder = "${seed}/bin/sh";
      args = [
        "-euc"
        script
      ];
      PATH = "${seed}/bin";
    };
in
{
  # Two paths: each applet here is a link to the seed's.
  busybox = build "busybox" ''
    mkdir -p $out/bin
    for applet in $(ls $seed/bin); do ln -s $seed/bin/$applet $out/bin/$applet; done
  '';

  # For tests of copying between hosts: the lab builds it on one host only.
  only-on-one = build "only-on-one" ''
    mkdir -p $out/bin
    for applet in sh sleep echo cat; do ln -s $seed/bin/$applet $out/bin/$applet; done
    echo 'built on one host' > $out/origin
  '';
}
