# The lab's closures, without nixpkgs: a static busybox and what it can build of the programs that lie in folders beside this file.
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

  # A folder with all applets, each a link to the seed's, and what a script adds in it.
  applets =
    name: script:
    build name ''
      mkdir -p $out/bin
      cd $out/bin
      for applet in $(ls $seed/bin); do ln -s $seed/bin/$applet $applet; done
      ${script}
    '';

  # The whole root of a container, as an image of the upstream tests has it. It is copied into each container: all but
  # small files are links into the store.
  root =
    name: bin: script:
    build "${name}-root" ''
      mkdir -p $out/etc $out/tmp $out/root $out/home $out/usr/local/bin $out/var/run
      cd $out
      ln -s ${bin}/bin bin
      ln -s ../bin usr/bin
      ln -s bin sbin
      cat > etc/passwd <<'X'
      root:x:0:0:root:/root:/bin/sh
      nobody:x:65534:65534:nobody:/:/bin/false
      user-defined-in-image:x:1000:1000::/home:/bin/sh
      X
      cat > etc/group <<'X'
      root:x:0:
      nogroup:x:65534:
      user-defined-in-image:x:1000:
      group-defined-in-image:x:50000:user-defined-in-image
      X
      ${script}
    '';

  # The one thing that tests ask of curl: to fetch an address in a given time.
  curl = builtins.toFile "curl" ''
    #!/bin/sh
    seconds=30 address=
    while [ $# -gt 0 ]; do
      case $1 in
        --max-time | --connect-timeout) seconds=$2; shift 2 ;;
        -[gqsS]*) shift ;;
        -*) echo "curl: $1 is not known here" >&2; exit 2 ;;
        *) address=$1; shift ;;
      esac
    done
    exec wget -q -T "$seconds" -O - "$address"
  '';

  withCurl = applets "agnhost-bin" ''
    cp ${curl} curl
    chmod 755 curl
  '';

  withShell = applets "busybox-bin" "ln -sf ${./shell}/bin/sh sh";
in
{
  # Two paths: each applet here is a link to the seed's.
  busybox = applets "busybox" "";

  # One program, and so no tar.
  bare = build "bare" "mkdir -p $out/bin; ln -s $seed/bin/sleep $out/bin/sleep";

  # For tests of copying between hosts: the lab builds it on one host only.
  only-on-one = build "only-on-one" ''
    mkdir -p $out/bin
    for applet in sh sleep echo cat; do ln -s $seed/bin/$applet $out/bin/$applet; done
    echo 'built on one host' > $out/origin
  '';

  # A whole system, as its init boots it: Debian's systemd with the units of a system that does nothing but say so.
  system = build "system" ''
    mkdir -p $out/etc/systemd/system/multi-user.target.wants $out/sw/bin
    cd $out
    for program in $(ls ${./systemd}/usr/bin); do ln -s ${./systemd}/usr/bin/$program sw/bin/$program; done
    for applet in $(ls $seed/bin); do [ -L sw/bin/$applet ] || ln -s $seed/bin/$applet sw/bin/$applet; done
    ln -s ${./systemd}/usr/lib/systemd/system/multi-user.target etc/systemd/system/default.target
    cat > etc/systemd/system/greeting.service <<X
    [Service]
    Type=oneshot
    RemainAfterExit=yes
    PassEnvironment=GREETING
    ExecStart=$out/sw/bin/sh -c 'echo "greeting: \$\$GREETING"'
    ExecStop=$out/sw/bin/sh -c 'echo "farewell: \$\$GREETING"'
    X
    ln -s ../greeting.service etc/systemd/system/multi-user.target.wants/
    cat > init <<X
    #!$out/sw/bin/sh
    export PATH=$out/sw/bin
    mkdir -p /nix/var/nix/gcroots
    ln -sfn $out /run/current-system
    ln -sfn /run/current-system /nix/var/nix/gcroots/current-system
    for directory in bin lib lib64; do ln -sfn ${./systemd}/usr/\$directory /usr/\$directory; done
    ln -sfn usr/lib /lib
    ln -sfn usr/lib64 /lib64
    ln -sfn $out/etc/systemd /etc/systemd
    : >> /etc/machine-id
    exec /usr/lib/systemd/systemd "\$@"
    X
    chmod 755 init
  '';

  agnhost = applets "agnhost" "ln -s ${./agnhost}/bin/agnhost agnhost";

  agnhost-root = root "agnhost" withCurl ''
    mkdir uploads
    for name in agnhost agnhost-2; do ln -s ${./agnhost}/bin/agnhost $name; done
  '';

  busybox-root = root "busybox" withShell "";

  nginx-root = root "nginx" (applets "nginx-bin" "") ''
    mkdir -p usr/share/nginx/html
    echo '<title>Welcome to nginx!</title>' > usr/share/nginx/html/index.html
  '';

  nonewprivs-root = root "nonewprivs" (applets "nonewprivs-bin" "") "cp ${./nonewprivs}/bin/nnp usr/local/bin/nnp";

  kitten-root = root "kitten" (applets "kitten-bin" "") ''
    echo '{"image": "kitten.jpg"}' > data.json
    echo 'NAME="Alpine Linux"' > etc/os-release
  '';

  pause-root = build "pause-root" ''
    mkdir $out
    ln -s ${./pause}/bin/pause $out/pause
  '';
}
