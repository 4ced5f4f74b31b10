#!/usr/bin/env bash
# A newer Mesa beside Debian 12's, which Dawn refuses: unpacked from bookworm-backports into FOLDER, not installed.
#
#   mesa.sh FOLDER
#
# Does nothing where the system's Mesa is version 23 or newer, or where this is not Debian 12. FOLDER/lvp_icd.json and FOLDER/radeon_icd.json are what
# VK_ICD_FILENAMES and `kernel-stats --icd` take. apt checks the package by Debian's key; the libraries it needs are those of the system's Mesa.
set -euo pipefail
folder="${1:?usage: mesa.sh FOLDER}"
codename="$(. /etc/os-release 2>/dev/null && echo "${VERSION_CODENAME:-}")"
installed="$(dpkg-query -W -f '${Version}' mesa-vulkan-drivers 2>/dev/null || true)"
if [ "$codename" != bookworm ] || [ -z "$installed" ] || dpkg --compare-versions "$installed" ge 23; then exit 0; fi
if [ -f "$folder/lvp_icd.json" ]; then exit 0; fi

mkdir -p "$(dirname "$folder")"
aside="$(mktemp -d "$folder.XXXXXX")"
trap 'rm -rf "$aside"' EXIT
mkdir -p "$aside/lists/partial" "$aside/cache/archives/partial"
# Where the system's own packages come from, backports are too.
mirror="$(apt-get indextargets --format '$(REPO_URI)' "Codename: $codename" | head -n 1)"
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] ${mirror:?apt has no packages of $codename} $codename-backports main" >"$aside/backports.list"
# apt's own view of the world stays as it is.
apt=(apt-get -qq -o "Dir::Etc::SourceList=$aside/backports.list" -o Dir::Etc::SourceParts=/dev/null -o "Dir::State::Lists=$aside/lists"
  -o "Dir::Cache=$aside/cache" -o APT::Sandbox::User=)
"${apt[@]}" update
(cd "$aside" && "${apt[@]}" download mesa-vulkan-drivers)
dpkg-deb -x "$aside"/mesa-vulkan-drivers_*.deb "$aside/root"
rm -rf "$folder" "$aside/lists" "$aside/cache" "$aside"/*.deb "$aside/backports.list"
for name in lvp radeon; do
  # As seen from the file itself.
  library="$(cd "$aside/root" && find . -name "libvulkan_$name.so" | head -n 1)"
  cat >"$aside/${name}_icd.json" <<JSON
{"file_format_version": "1.0.0", "ICD": {"library_path": "./root/${library#./}", "api_version": "1.3.0"}}
JSON
done
mv "$aside" "$folder"
trap - EXIT
